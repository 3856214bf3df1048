"""Who judges: two networks that share nothing, none that the model was trained with, and on images that are held out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2i.errors import RequestError
from i2i.evaluation import protocol, request
from i2i.metrics import judges
from i2i.metrics.judges import describe_selection, family, second_judge
from i2i.metrics.weights import catalog_entry
from i2i.training.callbacks.fixed_inputs import best_embedding

Run = Any
LITE0 = {"efficientnet-lite0": catalog_entry("efficientnet-lite0").sha256}


@pytest.fixture(autouse=True)
def _second_judges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(judges, "SECOND_JUDGES", ("random", "open-nsfw"))
    monkeypatch.setenv("I2I_CACHE", str(tmp_path / "cache"))


def here(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    monkeypatch.setattr(judges, "available_networks", lambda folder=None: list(names))


ALL = ("efficientnet-lite0", "inception", "open-nsfw", "random")


@pytest.mark.parametrize(("available", "trained", "expected"), [
    (ALL, {}, ["inception", "random", "open-nsfw"]),
    (("efficientnet-lite0", "random"), {}, ["efficientnet-lite0", "random"]),
    (("efficientnet-lite0", "open-nsfw", "random"), LITE0, ["open-nsfw", "random"]),
    (("efficientnet-lite0", "random"), LITE0, ["random"]),
    (("efficientnet-lite0", "random"), {"timm:tf_efficientnet_lite0": LITE0["efficientnet-lite0"]}, ["random"]),      # The same weights by another name.
    (("efficientnet-lite0", "random"), {"random": "0" * 64}, ["efficientnet-lite0"]),
    (("random",), {"random": "0" * 64}, ["random"]),        # There is no other; a warning says so.
])
def test_the_default_judges(monkeypatch: pytest.MonkeyPatch, available: Iterable[str], trained: dict[str, str], expected: list[str]) -> None:
    here(monkeypatch, available)
    assert judges.default_judges(trained) == expected


def test_one_cheap_judge_while_training(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, ALL)
    assert judges.training_judge({}) == "efficientnet-lite0"
    assert judges.training_judge(LITE0) == "open-nsfw"
    here(monkeypatch, ("efficientnet-lite0", "random"))
    assert judges.training_judge(LITE0) == "random"
    said: list[str] = []
    embedding = best_embedding(torch.device("cpu"), said.append, LITE0)
    assert (embedding.name, said) == ("random", [])
    assert embedding.embed(torch.zeros(2, 3, 16, 16)).shape == (2, 96)


def test_a_partial_judge_is_a_warning_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, ALL)
    (line,) = judges.partiality_warnings({"efficientnet-lite0": "", "random": ""}, LITE0)
    assert "was trained with efficientnet-lite0" in line
    assert "by default it is judged by inception, random, open-nsfw" in line
    assert "\n" not in line
    assert judges.partiality_warnings({"random": ""}, LITE0) == []


@pytest.mark.parametrize(("judge", "sha", "warning"), [
    ("efficientnet-lite2", "2", "was trained with efficientnet-lite0, and efficientnet-lite2 is of the same family,"),
    ("timm:tf_efficientnet_lite0", "2", "and timm:tf_efficientnet_lite0 is of the same family,"),
    ("timm:mine", LITE0["efficientnet-lite0"], "was trained with timm:mine, which therefore"),      # The same weights by another name.
    ("inception", "2", ""), ("timm:vit_small_patch14_dinov2", "2", "")])
def test_relatives_of_what_a_model_was_trained_with_are_reported(monkeypatch: pytest.MonkeyPatch, judge: str, sha: str, warning: str) -> None:
    here(monkeypatch, ALL)
    found = judges.partiality_warnings({judge: sha}, LITE0)
    assert (warning in found[0]) if warning else found == []


def test_families_are_architectures_of_all_sizes() -> None:
    relatives = (("efficientnet-lite0", "efficientnet-lite2", "timm:tf_efficientnet_b0", "timm:efficientnet_lite0"), ("vgg16", "vgg16-hed", "timm:vgg19_bn"),
                 ("inception", "timm:inception_v3"), ("random",), ("open-nsfw",), ("alexnet",), ("timm:resnet18", "timm:resnet50d"))
    assert [{family(name) for name in names} for names in relatives] == [{name} for name in ("efficientnet", "vgg", "inception", "random", "open", "alexnet", "resnet")]
    hed = {"vgg16-hed": "1"}
    assert not judges.is_impartial("vgg16", hed)
    assert judges.training_judge({"efficientnet-lite2": "1"}) != "efficientnet-lite0"


@pytest.mark.parametrize(("available", "first", "trained", "expected"), [
    (ALL, "efficientnet_lite0", {}, "random"), (ALL, "open_nsfw", LITE0, "random"), (ALL, "random", LITE0, "open-nsfw"),
    (("efficientnet-lite0", "random"), "random", LITE0, None), (("efficientnet-lite0", "random"), "efficientnet_lite0", {"random": "0"}, None)])
def test_a_trained_model_has_a_second_judge(monkeypatch: pytest.MonkeyPatch, available: Iterable[str], first: str, trained: dict[str, str], expected: str | None) -> None:
    here(monkeypatch, available)
    assert second_judge(first, trained) == expected


def test_lpips_compares_by_a_network_too(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, ALL)
    networks = request.networks_of_pairs(request.choose_metrics("l1,lpips", ["lpips.net=vgg"], (), "none"))
    assert networks == {"vgg16": catalog_entry("vgg16").sha256}
    assert "was trained with vgg16," in judges.partiality_warnings(networks, networks)[0]


def test_generated_images_are_judged_by_what_their_model_was_not_trained_with(i2i: Run, tmp_path: Path) -> None:
    from i2i.inference.generation_plan import GenerationPlan
    from i2i.inference.image_store import PLAN, trained_with
    real, fake = boxes(tmp_path / "real", 8, 0), boxes(tmp_path / "fake", 8, 1)
    words = ("evaluate", "--real", real, "--fake", fake, "--bootstrap", 0, "--metrics", "kid")
    plan = GenerationPlan("0" * 64, 0, 1.0, (), (), 4, ".png", "0.1.0", LITE0)
    (fake / PLAN).write_text(plan.to_json())
    assert trained_with(fake) == LITE0
    assert trained_with(real) == trained_with("peeps-64") == {}
    done = i2i(*words)
    assert done.code == 0, done.err
    assert "kid_random" in done.out
    assert "efficientnet" not in done.out
    done = i2i(*words, "--features", "efficientnet-lite0")
    assert "warning: the model was trained with efficientnet-lite0" in done.err


def test_judges_are_chosen_by_name_and_a_weights_file_is_the_firsts(tmp_path: Path) -> None:
    chosen = request.choose_features("random, efficientnet-lite0", None, "clean")
    assert [each.name for each in chosen] == ["random", "efficientnet-lite0"]
    assert [each.name for each in request.choose_features(None, None, "clean", trained_with=LITE0)][-1] != "efficientnet-lite0"
    with pytest.raises(RequestError, match="--features randm is not known; did you mean 'random'"):
        request.choose_features("efficientnet-lite0,randm", None, "clean")


def boxes(folder: Path, n: int, seed: int) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        image = np.full((32, 32, 3), 230, np.uint8)
        x, y = rng.integers(0, 20, 2)
        image[y:y + 10, x:x + 10] = rng.integers(0, 256, 3)
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def test_evaluation_reports_each_judge(i2i: Run, tmp_path: Path) -> None:
    real, fake = boxes(tmp_path / "real", 8, 0), boxes(tmp_path / "fake", 8, 1)
    words = ("evaluate", "--real", real, "--fake", fake, "--bootstrap", 0, "--features")
    metrics = ("--metrics", "kid,precision_recall,color,diversity")
    done = i2i(*words, "efficientnet-lite0,random", *metrics, "--json", tmp_path / "both.json")
    assert done.code == 0, done.err
    both = json.loads((tmp_path / "both.json").read_text())
    assert {"kid_efficientnet_lite0", "precision", "pairwise_distance", "kid_random", "precision_random", "recall_random", "f1_random",
            "pairwise_distance_random", "duplicates", "color_L"} <= both["results"].keys()
    assert not {"color_L_random", "duplicates_random", "kid_random_random"} & both["results"].keys()
    assert both["stamp"]["features"] == "efficientnet-lite0"
    assert list(both["stamp"]["more_features"]) == ["random"]
    assert "features efficientnet-lite0 (weights 57934424), random (weights " in done.out
    done = i2i(*words, "random", *metrics, "--json", tmp_path / "one.json")
    one = json.loads((tmp_path / "one.json").read_text())
    assert one["results"]["kid_random"] == both["results"]["kid_random"]
    assert one["results"]["precision"] == both["results"]["precision_random"]


def test_results_are_comparable_if_the_judges_that_both_have_are_the_same() -> None:
    stamp = {"features": "efficientnet-lite0", "weights": "1" * 64, "metrics": {"fd": {}}, "more_features": {"random": "2" * 64}}
    new, without = {"stamp": stamp}, {"stamp": stamp | {"more_features": {}}}
    protocol.check_comparable(new, without, "old.json")
    protocol.check_comparable(without, new, "old.json")
    protocol.check_comparable(new, new, "old.json")
    with pytest.raises(RequestError, match="more_features is"):
        protocol.check_comparable(new, {"stamp": stamp | {"more_features": {"random": "3" * 64}}}, "old.json")


def test_what_a_split_says_of_a_model() -> None:
    assert describe_selection("test", "val", has_val=True) == "picked on val, shown on test once"
    assert describe_selection("test", "train", has_val=False) == "picked on train, shown on test once"
    assert describe_selection("test", "", has_val=True) == "the last model of its run, not a picked one; shown on test once"
    assert describe_selection("test", "", has_val=False).endswith("test is not held out once models are compared on it")
    assert describe_selection("val", "val", has_val=True) == describe_selection("val", "", has_val=True) == "not held out: best is picked on val"
    assert describe_selection("train", "train", has_val=False) == "not held out: best is picked on train"
    assert describe_selection("train", "val", has_val=True) == "not held out: the model was trained on these"


def test_a_model_is_judged_by_what_it_was_not_trained_with(i2i: Run, tmp_path: Path) -> None:
    import i2i as package
    from i2i.runs import checkpoint
    for split in ("train", "test"):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 64, 3), np.uint8)).save(folder / f"{i}.png")
    run = package.train("pix2pix", "generator.width=4", "discriminator.width=4", "discriminator.layers=1", "train.batch_size=2",
                        "train.images=2", data=tmp_path / "data", out=tmp_path / "run", device="cpu")
    file = tmp_path / "run" / "model.safetensors"
    assert run
    tensors, header = checkpoint.load(file, "model")
    checkpoint.save(file, tensors, header | {"feature_networks": LITE0})
    from i2i.inference.image_store import trained_with
    made = tmp_path / "made"
    assert i2i("translate", file, tmp_path / "data" / "test", "--half", "left", "--out", made, "--device", "cpu").code == 0
    assert trained_with(made) == LITE0
    words = ("evaluate", file, "--metrics", "l1,kid", "--bootstrap", 0, "--device", "cpu")
    done = i2i(*words, "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    data = json.loads((tmp_path / "r.json").read_text())
    assert "kid_random" in data["results"]
    assert "kid_efficientnet_lite0" not in data["results"]
    assert "test is not held out once models are compared on it" in data["selection"]
    assert data["selection"] in done.out
    done = i2i(*words, "--features", "efficientnet-lite0")
    assert done.code == 0, done.err
    assert "warning: the model was trained with efficientnet-lite0" in done.err
    assert "kid_efficientnet_lite0" in done.out
