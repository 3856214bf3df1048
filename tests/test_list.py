"""`i2i list`: components, recipes, presets and settings, by name and by pattern."""

import inspect
import re
from typing import Any

import pytest

from i2i import registry
from i2i.config import settings
from i2i.recipes.base import Inverts, Reconstructs, Scores
from i2i.recipes.presets import PRESETS
from i2i.training.other_tools import known_words
from tests.conftest import Run


def listed(i2i: Run, *words: str) -> str:
    result = i2i("list", *words)
    assert (result.code, result.err) == (0, ""), result.err
    return result.out


def test_list_shows_a_line_for_each_component(i2i: Run) -> None:
    lines = listed(i2i).splitlines()
    for kind in registry.kinds():
        names = lines[lines.index(kind) + 1:]
        assert [line.split()[0] for line in names[:len(registry.names(kind))]] == registry.names(kind)
    assert sum(line.startswith("  train.batch_size ") for line in lines) == 1
    assert any(re.match(r"  lsgan +Mao et al. 2017", line) for line in lines)       # The preset, beside the loss of this name.


def test_list_takes_patterns(i2i: Run) -> None:
    out = listed(i2i, "*gan*")
    assert {line.split()[0] for line in out.splitlines() if line.startswith("  ")} >= {"cyclegan", "stylegan2-ada", "lsgan", "wgan-gp", "dcgan"}
    assert "unet" not in out
    assert listed(i2i, "*GAN*") == out
    assert [line.split()[0] for line in listed(i2i, "*batch_size").splitlines()[:2]] == ["settings", "train.batch_size"]
    assert [line.split()[0] for line in listed(i2i, "data", "clahe*").splitlines()] == ["data.clahe", "data.clahe_tiles", "data.clahe_sides"]
    assert listed(i2i, "discriminator", "style*").startswith("stylegan2 (discriminator): ")
    assert "nothing matches '*zzz*'" in i2i("list", "*zzz*").line


def test_list_shows_all_that_a_recipe_or_preset_uses(i2i: Run) -> None:
    rows = {line.split()[0]: line.split()[1] for line in listed(i2i, "pix2pix").splitlines()[1:-1]}
    assert {key: rows[key] for key in ("generator", "generator.width", "discriminator.width", "lambda_l1", "g_optimizer.lr")} == {
        "generator": "unet", "generator.width": "64", "discriminator.width": "64", "lambda_l1": "100.0", "g_optimizer.lr": "0.0002"}
    rows = {line.split()[0]: line.split()[1] for line in listed(i2i, "stylegan2-ada").splitlines()[1:-1]}
    assert {key: rows[key] for key in ("augment", "penalty.every", "g_optimizer.beta1", "train.batch_size")} == {
        "augment": "ada", "penalty.every": "16", "g_optimizer.beta1": "0.0", "train.batch_size": "16"}
    for name in [*PRESETS, *registry.names("recipe")]:
        assert listed(i2i, name).startswith(f"{name} (")


@pytest.mark.parametrize(("words", "rows"), [
    (["train.batch_size"], ["train.batch_size  1  Images per step, all processes together"]),
    (["batch_size"], ["train.batch_size  1  Images per step, all processes together"]),
    (["train", "precision"], ["train.precision  fp32  Of the networks' computation; parameters stay fp32 (fp32 or bf16)"]),
    (["lambda_l1"], ["(in pix2pix)"]), (["generator.width"], ["generator.width  64 ", "in resnet, spade, unet", "generator.width  400 ", "in mlp"]),
    (["lr"], ["g_optimizer.lr  0.0002", "in adam, adamw", "unrolling.lr "]),
    (["unet"], ["unet (generator): U-Net", "  width ", "  norm ", "(batch, instance, none, syncbatch, virtual)"]),
    (["generator", "dcgan"], ["dcgan (noise_generator): DCGAN", "  z_dim "]), (["dcgan"], ["dcgan (preset)", "dcgan (discriminator)", "dcgan (noise_generator)"]),
    (["g_weight_norm", "spectral"], ["spectral (weight_norm): "]), (["generator"], ["resnet (generator)", "unet (generator)", "dcgan (noise_generator)", "stylegan2"]),
    (["preset", "sngan"], ["adversarial=hinge d_weight_norm=spectral"]), (["data"], ["data.direction "]), (["unet.width"], ["generator.width  64  Channels", "(in unet)"]),
    (["adam.lr"], ["g_optimizer.lr ", "d_optimizer.lr "]), (["pix2pix.lambda_l1"], ["lambda_l1  100.0  "]), (["kid.subsets"], ["subsets  "]), (["metric", "kid"], ["kid (metric)", "  subsets "]),
])
def test_list_says_what_a_name_means(i2i: Run, words: list[str], rows: list[str]) -> None:
    out = listed(i2i, *words)
    for each in rows:
        assert each in out, out


@pytest.mark.parametrize(("words", "hint"), [
    (["generators"], "did you mean 'generator'"), (["preset", "dcgn"], "did you mean 'dcgan'"), (["generator", "unett"], "did you mean 'unet'"),
    (["generator", "dcgam"], "did you mean 'dcgan'"), (["batch_sise"], "did you mean 'batch_size'"), (["generator.widht"], "did you mean 'generator.width'"),
    (["unet.widht"], "did you mean 'unet.width'"), (["data", "flipp"], "did you mean 'flip'"), (["oops", "unet"], "no kind of component is called 'oops'"), (["data", "zz*"], "no setting of data")])
def test_list_refuses_unknown_names(i2i: Run, words: list[str], hint: str) -> None:
    result = i2i("list", *words)
    assert result.code == 2
    assert hint in result.line


@pytest.mark.parametrize("columns", [60, 80, 132])
def test_list_fits_the_terminal(i2i: Run, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = [line for words in ([], ["data"], ["unet"], ["train"]) for line in listed(i2i, *words).splitlines()]
    assert max(map(len, lines)) <= max(columns, 36 + 2 + 22 + 2 + 30)
    assert len(lines) > 200


def own_and_inherited(name: str) -> tuple[set[str], set[str]]:
    cls = registry.lookup("recipe", name)
    own = {key for key in inspect.get_annotations(cls) if key in settings(cls)}
    return own, set(settings(cls)) - own


@pytest.mark.parametrize("name", registry.names("recipe"))
def test_settings_of_a_recipe_come_before_those_it_shares_with_others(i2i: Run, name: str) -> None:
    own, inherited = own_and_inherited(name)
    keys = [line.split()[0] for line in listed(i2i, name).splitlines() if line.startswith("  ")]
    positions = {key: keys.index(key) for key in own | inherited}
    assert own or name == "palette"     # Diffusion on other data.
    assert max((positions[key] for key in own), default=-1) < min(positions[key] for key in inherited)


def test_list_says_what_the_models_of_each_recipe_can_do(i2i: Run) -> None:
    rows = {line.split()[0]: line for line in listed(i2i, "family").splitlines()}
    assert list(rows) == registry.names("recipe")
    assert rows["cyclegan"].split(maxsplit=2)[1:] == ["GAN", "density none, inversion approximate, steps to sample 1; learns from unpaired images"]
    assert listed(i2i, "family", "cycle*").splitlines() == [" ".join(rows["cyclegan"].split()).replace("cyclegan GAN ", "cyclegan  GAN  ")]
    assert "no recipe is called 'vea'" in i2i("list", "family", "vea").line


@pytest.mark.parametrize("name", registry.names("recipe"))
def test_a_recipe_declares_what_its_methods_can_do(name: str) -> None:
    recipe: Any = registry.lookup("recipe", name)()
    assert (recipe.family.density != "none") == isinstance(recipe, Scores)
    assert not isinstance(recipe, Reconstructs) or recipe.family.inversion != "none"
    assert recipe.sources or (recipe.family.inversion != "none") == isinstance(recipe, Inverts)
    steps = recipe.family.steps
    assert steps >= 1 if isinstance(steps, int) else steps == "pixels" or steps.partition(".")[0] in settings(recipe)


@pytest.mark.parametrize(("words", "answer"), [
    (["ngf"], "generator.width=… (i2i list generator.width)"), (["lambda_A"], "lambda_cycle_a=… (i2i list lambda_cycle_a)"), (["kimg"], "images=…k (i2i list images)"),
    (["netG"], "i2i list generator"), (["netG", "unet"], "i2i list generator"), (["n_epochs"], "i2i train RECIPE --epochs …"), (["train", "epochs"], "i2i train RECIPE --epochs …"),
    (["dataset_mode"], "i2i train pix2pix or i2i train cyclegan"), (["batch-size"], "i2i list batch_size"), (["Unet"], "i2i list unet"), (["n_blocks"], "generator.blocks=… (i2i list generator.blocks)")])
def test_list_says_what_a_word_of_another_tool_is_called_here(i2i: Run, words: list[str], answer: str) -> None:
    result = i2i("list", *words)
    assert (result.code, result.line.partition("; type ")[2]) == (2, answer), result.line
    for each in re.findall(r"i2i list (\S+?)\)?$", answer):
        assert listed(i2i, each)


def test_every_word_of_other_tools_is_answered(i2i: Run) -> None:
    for word in known_words():
        result = i2i("list", word)
        assert result.code == 0 or "; type " in result.line, word
