import importlib
import inspect
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from i2i.config import from_dict, override, parse, parse_assignments, settings, to_dict
from i2i.data.config import DataConfig
from i2i.errors import RequestError
from i2i.metrics import paired, set_metrics  # noqa: F401 - registers the metrics.
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import KINDS, Option, Spec, build, kinds, lookup, names, register, schema, to_json
from i2i.training import job as jobs  # noqa: F401 - registers all components.
from i2i.training.config import TrainConfig
from i2i.training.settings import check_components, configure


@dataclass(frozen=True, kw_only=True)
class Config:
    a: int = 1
    b: float = 2.0
    c: bool = False
    d: Literal["x", "y"] = "x"
    e: tuple[int, ...] = (1, 2)


def test_text_becomes_the_annotated_type() -> None:
    got = override(Config(), parse_assignments(["a=400k", "b=1.5M", "c=true", "d=y", "e=3,4,5"]))
    assert got == Config(a=400_000, b=1.5e6, c=True, d="y", e=(3, 4, 5))


@pytest.mark.parametrize(("word", "words_in_error"), [
    ("a=1.5", ["a=1.5", "integer"]), ("a=ten", ["a=ten", "integer"]), ("b=nan", ["b=nan", "a number"]), ("b=inf", ["a number"]),
    ("c=yes", ["true or false"]), ("d=z", ["x or y"]), ("e=1,q", ["e=1,q"]), ("aa=1", ["no setting 'aa'", "did you mean 'a'"]),
    ("a.b=1", ["a has no options"]), ("a", ["KEY=VALUE"]), ("=3", ["KEY=VALUE"]), ("a=", ["a="])])
def test_an_unreadable_value_is_answered_with_key_value_and_accepted_type(word: str, words_in_error: list[str]) -> None:
    with pytest.raises(RequestError) as error:
        override(Config(), parse_assignments([word]))
    for part in words_in_error:
        assert part in str(error.value)


def test_components_are_set_before_their_options_in_any_order() -> None:
    got = override(Pix2Pix(), parse_assignments(["generator.blocks=3", "generator=resnet"]))
    assert got.generator == Spec("resnet", {"blocks": 3})


def test_choosing_the_same_component_keeps_its_options_and_another_drops_them() -> None:
    wide = override(Pix2Pix(), parse_assignments(["generator.width=8"]))
    assert override(wide, parse_assignments(["generator=unet"])).generator == Spec("unet", {"width": 8})
    assert override(wide, parse_assignments(["generator=resnet"])).generator == Spec("resnet")


@pytest.mark.parametrize(("words", "expected"), [
    (["generator=unett"], "did you mean 'unet'"), (["generator.widht=3"], "did you mean 'width'"), (["penalty.gamma=3"], "penalty can be clip, dragan"), (["lamda_l1=3"], "did you mean 'lambda_l1'"),
    (["lambda_L1=3"], "did you mean 'lambda_l1'")])
def test_the_nearest_name_is_suggested(words: list[str], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        override(Pix2Pix(), parse_assignments(words))


def test_configs_survive_json() -> None:
    import json
    recipe = override(Pix2Pix(), parse_assignments(["generator.width=8", "g_optimizer.lr=1e-4", "adversarial=lsgan", "lambda_l1=50"]))
    assert from_dict(Pix2Pix, json.loads(json.dumps(to_dict(recipe)))) == recipe
    config = Config(e=(7, 8))
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_unknown_keys_in_a_stored_config_are_refused() -> None:
    with pytest.raises(RequestError, match="no setting 'lambda_l2'"):
        from_dict(Pix2Pix, {"lambda_l2": 3})


def test_a_name_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        register("generator", "unet")(object)


def test_every_kind_is_known_before_its_components_are() -> None:
    assert importlib.import_module("i2i.cli.catalog").names().keys() <= set(KINDS)
    with pytest.raises(ValueError, match="no kind of component is called 'generatr'; did you mean 'generator'"):
        register("generatr", "mine")(object)


@pytest.mark.parametrize(("recipe", "words", "said"), [
    ("gan", ["lr=-1"], "g_optimizer.lr and d_optimizer.lr=-1.0 cannot"), ("gan", ["d_optimizer.eps=0"], "d_optimizer.eps=0.0 cannot"),
    ("gan", ["lr=-1", "d_optimizer=rmsprop"], "g_optimizer.lr and d_optimizer.lr=-1.0 cannot"), ("pix2pix", ["g_weight_norm=spectral", "g_weight_norm.iterations=0"], "g_weight_norm.iterations=0 cannot"),
    ("gan", ["g_penalty=path-length", "g_penalty.every=0"], "g_penalty.every=0 cannot"),
    ("gan", ["discriminator=patch", "discriminator.norm=virtual"], "discriminator.norm=virtual cannot"), ("pix2pix", ["generator.norm=virtual"], "generator.norm=virtual cannot"),
    ("pix2pix", ["discriminator=patch+pixel", "discriminator.pixel.width=0"], "discriminator.pixel.width=0 cannot"), ("gan", ["generator.width=0"], "generator.width=0 cannot"),
    ("pix2pix", ["discriminator=patch+pixel", "discriminator.patch.norm=virtual"], "discriminator.patch.norm=virtual cannot"), ("gan", ["latent=mixture", "latent.sigma=0"], "latent.sigma=0.0 cannot"),
    ("cyclegan", ["d_weight_norm=spectral", "d_weight_norm.eps=0"], "d_weight_norm.eps=0.0 cannot"), ("cut", ["d_weight_norm=spectral", "d_weight_norm.eps=0"], "d_weight_norm.eps=0.0 cannot")])
def test_errors_name_keys_that_can_be_typed(recipe: str, words: list[str], said: str) -> None:
    """Also where a setting is not called like its kind, holds several components, or stands for several."""
    def job(*words: str) -> Recipe:
        return configure(lookup("recipe", recipe)(), DataConfig(), TrainConfig(), parse_assignments(words))[0]

    with pytest.raises(RequestError) as error, torch.device("meta"):
        (check_components(job(*words)), job(*words).modules(DataInfo((32, 32))))
    assert str(error.value).startswith(said)
    keys, _, value = str(error.value).partition(" cannot")[0].partition("=")
    assert job(*words, *(f"{key}={value}" for key in keys.split(" and "))) == job(*words)


def test_build_refuses_unknown_options() -> None:
    with pytest.raises(RequestError, match="no option 'gamma'"):
        build("adversarial", Spec("lsgan", {"gamma": 1}))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in kinds() if kind != "preset" for name in names(kind)])
def test_every_component_is_documented_and_every_option_can_be_typed(kind: str, name: str) -> None:
    assert (lookup(kind, name).__doc__ or "").strip()
    for key, parameter in schema(kind, name).items():
        assert parameter.default is not inspect.Parameter.empty, f"{key} has no default"
        if kind != "recipe":
            text = ",".join(map(str, parameter.default)) if isinstance(parameter.default, tuple) else str(parameter.default)
            assert to_json(parse(key, text, parameter.type)) == to_json(parameter.default)


CONFIGS = {"data": DataConfig, "train": TrainConfig} | {name: lookup("recipe", name) for name in names("recipe")}
ALL_OPTIONS = [pytest.param(option, id=f"{kind}-{name}-{key}") for kind in kinds() if kind not in ("recipe", "preset") for name in names(kind) for key, option in schema(kind, name).items()]
ALL_SETTINGS = [pytest.param(option, id=f"{name}-{key}") for name, config in CONFIGS.items() for key, option in settings(config).items()]


@pytest.mark.parametrize("option", ALL_OPTIONS + ALL_SETTINGS)
def test_every_option_and_setting_explains_itself_in_one_line(option: Option) -> None:
    assert option.help, "no help in the annotation"
    assert option.help == " ".join(option.help.split())
    assert option.help[0].isupper()
    assert not option.help.endswith(".")


@given(st.integers(0, 10**9))
def test_integers_round_trip(n: int) -> None:
    assert parse("n", str(n), int) == n
    assert parse("n", f"{n}k", int) == 1000 * n
