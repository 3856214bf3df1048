"""Models of earlier checkpoints: train.keep_models writes them, and RUN@IMAGES, RUN@best and RUN@last mean them wherever a model is asked for."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import i2i as package
from i2i.errors import RequestError
from i2i.inference.model_file import find_model, is_model
from i2i.report.run_contents import read_run
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from tests.conftest import SMALL, Run, drawn_strips


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with strips and a pix2pix run of three checkpoints whose models are all kept."""
    folder = tmp_path_factory.mktemp("keep")
    package.train("pix2pix", *SMALL, "train.images=24", "train.keep_models=every", data=drawn_strips(folder / "strips"), out=folder / "run", device="cpu")
    return folder


def test_the_model_of_every_checkpoint_is_kept_and_loads_with_what_it_was(base: Path) -> None:
    assert [path.name for path in RunFolder(base / "run").models().values()] == [f"model-{images:08}.safetensors" for images in (8, 16, 24)]
    assert [package.load(f"{base}/run@{images}", device="cpu").header["images"] for images in (8, 16, 24)] == [8, 16, 24]
    assert (base / "run/model-00000024.safetensors").read_bytes() == (base / "run/model.safetensors").read_bytes()
    early, late = (checkpoint.load(find_model(f"{base}/run@{images}"), "model")[0] for images in (8, 24))
    assert any(not torch.equal(early[key], late[key]) for key in early)
    state, _ = checkpoint.load(base / "run/state-00000016.safetensors", "state")
    assert all(torch.equal(value, state[f"ema.{key}"]) for key, value in checkpoint.load(find_model(f"{base}/run@16"), "model")[0].items())


@pytest.mark.parametrize(("at", "file"), [
    ("", "model"), ("@last", "model"), ("@best", "best"), ("@8", "model-00000008"), ("@0.016k", "model-00000016"), ("@0000024", "model-00000024")])
def test_what_follows_an_at_sign_says_which_model(base: Path, at: str, file: str) -> None:
    assert find_model(f"{base}/run{at}") == base / "run" / f"{file}.safetensors"
    assert is_model(f"{base}/run{at}")


def test_the_last_and_the_best_are_found_by_their_images_without_kept_models(trained: Path, base: Path, tmp_path: Path) -> None:
    assert find_model(f"{trained}@24") == trained / "model.safetensors"
    best = shutil.copytree(base / "run", tmp_path / "run", ignore=shutil.ignore_patterns("model-*"))
    images = checkpoint.read_header(best / "best.safetensors", "model")["images"]
    assert find_model(f"{best}@{images}").name == ("model.safetensors" if images == 24 else "best.safetensors")


def test_a_path_with_an_at_sign_is_a_path(base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base / "run", tmp_path / "a@8")
    assert find_model(copy) == copy / "model.safetensors"
    assert find_model(f"{copy}@16") == copy / "model-00000016.safetensors"
    assert find_model(tmp_path / "none@8") == tmp_path / "none@8"
    assert not is_model(tmp_path / "none@8")


@pytest.mark.parametrize("which", ["9", "beast", "-8", "8@8", "1e400", "nan", "/../run", "x" * 120])
def test_another_is_refused_in_one_line_with_those_there_are(base: Path, i2i: Run, which: str) -> None:
    result = i2i("translate", f"{base}/run@{which}", base / "strips", "--out", "out")
    assert result.code == 2
    assert "has no model @" in result.line or "does not exist" in result.line or "is not a file" in result.line
    assert len(result.line) < 500
    if which in ("9", "beast"):
        assert "known: 8, 16, 24, last, best" in result.line


def test_translate_evaluate_and_report_take_them(base: Path, i2i: Run) -> None:
    assert i2i("translate", f"{base}/run@8", base / "strips/test", "--out", "out", "--device", "cpu").code == 0
    assert i2i("evaluate", f"{base}/run@8", "--metrics", "l1", "--json", "r.json", "--device", "cpu").code == 0
    assert json.loads(Path("r.json").read_text())["images"] == 8
    result = i2i("report", f"{base}/run@16")
    assert result.code == 0, result.err
    assert (base / "run/report-16.html").exists()
    contents = read_run(f"{base}/run@16")
    assert (contents.name, contents.verdict) == ("run@16", {})
    assert 8 < contents.images <= 16        # The last entry of the log until then; a slow machine writes more of them.
    assert [images for images, _ in contents.samples] == [0, 8, 16]
    assert read_run(f"{base}/run@24") == read_run(base / "run")
    assert read_run(f"{base}/run@best").images == read_run(base / "run").verdict["best"]["images"]


@pytest.mark.parametrize(("at", "said"), [("@x", "cannot be shown"), ("@1", "no log entries")])
def test_a_report_of_no_time_is_refused(base: Path, i2i: Run, at: str, said: str) -> None:
    result = i2i("report", f"{base}/run{at}")
    assert result.code == 2
    assert said in result.line


def test_a_number_keeps_the_newest_and_resuming_may_change_it(base: Path, tmp_path: Path) -> None:
    words = ("pix2pix", *SMALL, "train.images=24", "train.keep_models=2")
    run = package.train(*words, data=base / "strips", out=tmp_path / "run", device="cpu")
    assert list(RunFolder(run).models()) == [16, 24]
    RunFolder(run).state(24).unlink()       # As if it had been killed.
    package.train("", "train.keep_models=1", resume=run, device="cpu")
    assert list(RunFolder(run).models()) == [24]


@pytest.mark.parametrize("value", ["-1", "all", "1.5", "", "9" * 5000])
def test_other_values_are_refused(value: str) -> None:
    with pytest.raises(RequestError, match=r"train.keep_models=.* cannot be used; accepted: a number, 0 or more, or every"):
        package.training.config.TrainConfig(keep_models=value)


def test_no_model_is_kept_by_default(trained: Path) -> None:
    assert RunFolder(trained).models() == {}
