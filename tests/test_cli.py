"""What a user types, and what happens when it is wrong: one line, the right exit code, no traceback, nothing lost."""

import errno
import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import i2i as package
from i2i import load
from i2i.cli import app
from i2i.cli.application import App
from i2i.cli.progress import ProgressBars
from i2i.data.sources import bundled_datasets
from i2i.runs.folder import RunFolder
from tests import forked
from tests.conftest import SMALL, Run, drawing


def test_warnings_of_other_packages_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "argv", ["i2i", "--version"])
    with pytest.raises(SystemExit):
        app()
    assert warnings.formatwarning("two\nlines \33[2J", UserWarning, "f.py", 3) == "warning: two lines \\x1b[2J\n"


@pytest.mark.parametrize("words", [("train", "pix2pix", "--out", ""), ("report", "run", "--out", ""), ("evaluate", "--real", "a", "--fake", "b", "--json", ""), ("convert", "x.pth", "--out", "")])
def test_an_empty_value_is_not_the_default(i2i: Run, words: tuple[str, ...]) -> None:
    result = i2i(*words)
    assert (result.code, result.line) == (2, f"error: the value of {words[-2]} is empty")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ELOOP])
def test_what_the_disk_does_not_allow_is_one_line_wherever_it_is_noticed(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise OSError(number, os.strerror(number), "run/x.png")

    command = App(help="")
    command.command()(fails)
    assert command.run(["--"]) == 2
    assert capsys.readouterr().err == f"error: run/x.png: {os.strerror(number)}\n"


def test_train_translate_evaluate(strips: Path, i2i: Run, tmp_path: Path) -> None:
    """End to end through the command line, from a folder of strips to figures."""
    result = i2i("train", "pix2pix", *SMALL, "--data", strips, "--out", "run", "--epochs", 2, "--device", "cpu")
    assert result.code == 0, result.err
    assert "20/20 images" in result.out
    assert "images/s" in result.out
    assert "done: model run/model.safetensors" in result.out
    assert sorted(p.name for p in Path("run/samples").iterdir()) == ["00000000.png", "00000008.png", "00000016.png", "00000020.png"]
    sheet = np.asarray(Image.open("run/samples/00000020.png"))
    assert sheet.shape == (2 + 34, 2 + 34 * 9, 3)       # Three validation pairs, three pictures each.
    result = i2i("translate", "run", f"{strips}/test", "--half", "left", "--out", "out", "--device", "cpu")
    assert result.code == 0
    result = i2i("evaluate", "run", "--json", "figures.json", "--sheet", "sheet.png", "--device", "cpu")
    assert result.code == 0, result.err
    assert "4 test pairs" in result.out
    picture = np.asarray(Image.open("sheet.png"))
    assert np.array_equal(picture[2:34, 70:102], drawing(200)[:, 32:])
    assert np.array_equal(picture[2:34, 36:68], np.asarray(Image.open("out/00.png")))
    figures = json.loads(Path("figures.json").read_text())
    targets = [drawing(200 + i)[:, 32:].astype(float) for i in range(4)]
    ours = [np.asarray(Image.open(f"out/{i:02}.png")).astype(float) for i in range(4)]
    inputs = [drawing(200 + i)[:, :32].astype(float) for i in range(4)]
    assert figures["scores"]["model"]["l1"] == pytest.approx(np.mean([np.abs(o - t).mean() for o, t in zip(ours, targets, strict=True)]), abs=1e-6)
    assert figures["scores"]["copy the input"]["l1"] == pytest.approx(np.mean([np.abs(o - t).mean() for o, t in zip(inputs, targets, strict=True)]))
    assert figures["n"] == 4


def test_direction_swaps_source_and_target(strips: Path, i2i: Run) -> None:
    assert i2i("train", "pix2pix", *SMALL, "direction=ba", "train.images=2", "--data", strips, "--out", "run", "--device", "cpu").code == 0
    sheet = np.asarray(Image.open("run/samples/00000002.png"))
    assert np.array_equal(sheet[2:34, 2:34], drawing(100)[:, 32:])
    assert np.array_equal(sheet[2:34, 70:102], drawing(100)[:, :32])


def test_a_dry_run_prints_the_plan_and_writes_nothing(i2i: Run) -> None:
    result = i2i("train", "pix2pix", "--dry-run")
    assert result.code == 0
    for words in ("personas-edges-64", "1,000 train, 96 val, 188 test", "29,244,035 parameters", "1x3x64x64 -> 1x3x64x64", "1x1x6x6", "200,000 steps of 1 (200 epochs)",
                  "memory", "lambda_l1", "cropped to 64x64"):
        assert words in result.out, words
    assert list(Path().iterdir()) == []


def test_settings_from_the_issue_and_the_paper_parse(i2i: Run) -> None:
    result = i2i("train", "pix2pix", "generator=resnet", "generator.blocks=6", "adversarial=lsgan", "lambda_l1=50", "train.batch_size=8", "train.images=400k", "--dry-run")
    assert result.code == 0
    assert "resnet(blocks=6)" in result.out
    assert "400,000 images = 50,000 steps of 8" in result.out


def test_the_next_free_folder_is_taken(strips: Path, i2i: Run) -> None:
    for _ in range(2):
        assert i2i("train", "pix2pix", *SMALL, "train.images=2", "--data", strips, "--device", "cpu").code == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == ["pix2pix", "pix2pix-2"]


@pytest.mark.parametrize(("words", "expected"), [
    (["pix3pix"], "did you mean 'pix2pix'"), ([], "which recipe"), (["pix2pix", "lamda_l1=3"], "did you mean 'lambda_l1'"),
    (["pix2pix", "generator=unett"], "did you mean 'unet'"), (["pix2pix", "generator.widht=3"], "did you mean 'width'"),
    (["pix2pix", "train.batch_sise=3"], "did you mean 'train.batch_size'"), (["pix2pix", "lambda_l1=much"], "lambda_l1=much cannot be read"),
    (["pix2pix", "lambda_l1=-1"], "0 or more"), (["pix2pix", "train.batch_size=0"], "1 or more"), (["pix2pix", "train.batch_size=1.5"], "an integer"),
    (["pix2pix", "direction=aa"], "ab or ba"), (["pix2pix", "data.flip=maybe"], "true or false"), (["pix2pix", "train.precision=fp16"], "fp32 or bf16"),
    (["pix2pix", "oops"], "not KEY=VALUE"), (["pix2pix", "--epochs", "0"], "--epochs 0"), (["pix2pix", "--epochs", "2", "images=3"], "give one of them"),
    (["pix2pix", "--data", "no-such-folder"], "no-such-folder does not exist"), (["pix2pix", "--data", "openmoji-46"], "did you mean 'openmoji-64'"),
    (["pix2pix", "generator.depth=9", "--dry-run"], "unet of depth 9"), (["pix2pix", "discriminator.layers=6", "--dry-run"], "discriminator.layers=6"),
    (["pix2pix", "data.size=50", "--dry-run"], "cannot halve 50x50"), (["pix2pix", "schedule.start=2", "train.images=2"], "schedule.start=2.0"),
    (["pix2pix", "g_optimizer.lr=0", "train.images=2"], "optimizer.lr=0"), (["--resume", "nothing"], "nothing does not exist"), (["--resume", "."], "no config.json"),
    (["pix2pix", "--device", "tpu", "train.images=2"], "--device tpu"), (["pix2pix", "generator.norm=bach", "--dry-run"], "did you mean 'batch'")])
def test_wrong_requests_are_one_line_and_write_nothing(i2i: Run, words: list[str], expected: str) -> None:
    result = i2i("train", *words)
    assert result.code == 2
    assert expected in result.line
    assert not Path("runs").exists()


def test_wrong_data_is_one_line(strips: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "squares" / "train").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "squares" / "train" / "0.png")
    (tmp_path / "only-test" / "test").mkdir(parents=True)
    Image.fromarray(drawing(0)).save(tmp_path / "only-test" / "test" / "0.png")
    (tmp_path / "tiny" / "train").mkdir(parents=True)
    Image.new("RGB", (16, 8)).save(tmp_path / "tiny" / "train" / "0.png")
    (tmp_path / "unpaired" / "trainA").mkdir(parents=True)
    (tmp_path / "unpaired" / "trainB").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "unpaired" / "trainA" / "0.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "unpaired" / "trainB" / "1.png")
    (tmp_path / "text.txt").touch()
    for name, expected in {"empty": "holds no images", "squares": "an A|B strip is wider than high", "only-test": "none to train on", "tiny": "16x16 or more",
                           "unpaired": "have no partner", "text.txt": "not a folder, a shard"}.items():
        result = i2i("train", "pix2pix", *SMALL, "--data", tmp_path / name, "--epochs", 1)
        assert result.code == 2, name
        assert expected in result.line, name


@pytest.mark.parametrize("workers", [0, 2])
def test_one_corrupt_image_among_many(strips: Path, i2i: Run, workers: int) -> None:
    (strips / "train" / "05.png").write_bytes((strips / "train" / "05.png").read_bytes()[:60])
    words = ["pix2pix", *SMALL, "train.checkpoint_every=100", "--data", strips, "--device", "cpu", f"train.num_workers={workers}", "--epochs", 2]
    result = i2i("train", *words, "--out", "run")
    assert result.code == 2         # It is among the images that are looked at before training; test_resume has one that is met later.
    assert "05.png" in result.line
    assert not Path("run").exists()
    assert i2i("train", *words, "--out", "skipping", "data.on_error=skip").code == 0


def test_an_output_that_cannot_be_written(strips: Path, i2i: Run, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for out, expected in ((tmp_path / "file" / "run", "cannot be written"), (tmp_path / "file", "cannot be written"), (tmp_path / "full", "not empty"),
                          (trained, "holds another run")):
        result = i2i("train", "pix2pix", *SMALL, "--data", strips, "--epochs", 1, "--out", out, "--device", "cpu")
        assert result.code == 2, out
        assert expected in result.line


def test_a_full_disk_while_training(strips: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk: the first checkpoint fits, a log that grows past the limit or a larger state does not."""
    code = f"""
import resource, sys
from i2i.cli import app
from i2i.cli.progress import ProgressBars
from i2i.training import trainer as train
save, calls = train.Trainer.save, []
def limited(self):
    calls.append(1)
    if len(calls) == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    save(self)
train.Trainer.save = limited
sys.exit(app.run(["train", "pix2pix", *{SMALL!r}, "--data", {str(strips)!r}, "--out", {str(tmp_path / 'run')!r}, "--epochs", "4", "--device", "cpu"]))
"""
    done = forked.run(code=code, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert re.match(r"error: .*model.safetensors could not be written: .*File too large", lines[0])      # Before the state it belongs to.
    assert [path.stem for path in RunFolder(tmp_path / "run").states()] == ["state-00000000", "state-00000008"]
    assert not list((tmp_path / "run").glob(".*.part"))
    done = forked.run("train", "--resume", "run", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "40/40 images" in done.stdout


def test_ctrl_c_saves_and_prints_the_resume_line(strips: Path, tmp_path: Path) -> None:
    import signal
    import time
    process = subprocess.Popen([sys.executable, "-m", "i2i.cli", "train", "pix2pix", *SMALL, "--data", str(strips), "--out", str(tmp_path / "run"),
                                "train.images=1M", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while len(RunFolder(tmp_path / "run").states()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == f"stopped and saved; continue with: i2i train --resume {tmp_path / 'run'}"
    assert "Traceback" not in out + err


def test_the_python_api(strips: Path, tmp_path: Path) -> None:
    folder = package.train("pix2pix", *SMALL, "train.images=4", data=strips, out=tmp_path / "run", device="cpu")
    model = package.load(folder, device="cpu")
    picture = Image.fromarray(drawing(3)[:, :32])
    assert model.translate(picture).size == (32, 32)
    assert folder == tmp_path / "run"


def test_evaluate_says_what_is_missing(trained: Path, i2i: Run, tmp_path: Path, strips: Path) -> None:
    result = i2i("evaluate", trained, "--split", "val")
    assert result.code == 2
    assert "no val split" in result.line
    assert i2i("evaluate", trained, "--data", tmp_path / "nothing").code == 2
    (strips / "test" / "01.png").write_bytes(b"")
    result = i2i("evaluate", trained, "--data", strips)
    assert result.code == 1
    assert "01.png: empty file" in result.line


def test_a_group_without_a_command_prints_its_help(i2i: Run) -> None:
    result = i2i("explore")
    assert result.code == 0
    assert "interpolate" in result.out


@pytest.mark.parametrize("section", ["data", "train"])
def test_every_setting_is_explained(i2i: Run, section: str) -> None:
    for line in i2i("list", section).out.splitlines():
        assert re.match(r"\w+\.\w+ +(\S+ )? *[A-Z]\w+.*\w", line), line


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the resident size where Linux tells it")
def test_the_plans_memory_is_near_what_training_takes(strips: Path, tmp_path: Path) -> None:
    """Beside what torch itself takes, the estimate is within a quarter of the measured peak."""
    code = """
import re, torch; torch.set_num_threads(1)
from i2i import train
from i2i.training import job as jobs, memory
words = ["generator.width=48", "discriminator.width=48", "train.batch_size=4", "train.images=12", "data.size=128"]
job = jobs.prepare("pix2pix", words, data="strips")     # Few images to evaluate.
_, estimate = memory.estimate_memory(job.recipe, job.info, batch_size=4, ema=True, copies=2)
train("pix2pix", "generator.width=2", "discriminator.width=2", "train.images=2", data="strips", out="warm", device="cpu")
before = 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
train("pix2pix", *words, data="strips", out="run", device="cpu")
print(estimate.total, memory.peak_memory() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    estimated, measured = map(int, out.split())
    assert 0.75 < estimated / measured < 1.25, (estimated, measured)


@pytest.mark.parametrize(("name", "licenses"), [("openmoji-64", ["CC BY-SA 4.0"]), ("noto-twemoji-64", ["Apache License 2.0", "CC BY 4.0"]), ("fluent3d-64", ["MIT License"]),
                                                ("personas-edges-64", ["CC BY 4.0"]), ("lorelei-hair-64", ["CC0 1.0"]), ("peeps-64", ["CC0 1.0"])])
def test_bundled_data_carries_its_license_here_and_in_the_wheel(name: str, licenses: list[str]) -> None:
    text = bundled_datasets()[name].with_name(f"LICENSE-{name}.txt").read_text()
    assert all(license in text for license in licenses)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for file in (f"datasets/{name}.zip", f"datasets/LICENSE-{name}.txt"):
        assert packed[file] == f"i2i/{file}"
    assert f"datasets/LICENSE-{name}.txt" in project["project"]["license-files"]
    assert len(bundled_datasets()) == 6          # Of a seventh this knows nothing yet.


def test_a_broken_torchvision_is_explained(i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from i2i.training import train as training

    def fail(*words: object, **options: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(training, "train", fail)
    result = i2i("train", "pix2pix")
    assert result.code == 1
    assert "pip install --force-reinstall torch torchvision" in result.line


def test_what_is_a_bug_still_shows_its_traceback(i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from i2i.training import train as training

    def fail(*words: object, **options: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(training, "train", fail)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        i2i("train", "pix2pix")


def test_load_is_the_same_function() -> None:
    assert package.load is load
    with pytest.raises(AttributeError):
        package.no_such_thing  # noqa: B018


def test_bars_that_are_not_shown_write_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rich 13.0 ends those that are disabled with an empty line."""
    from rich.progress import Progress
    monkeypatch.setattr(Progress, "stop", lambda self: self.console.print())
    for rank in (0, 1):
        with ProgressBars(rank) as bars:
            bars.update("images", 1, 2)
            bars.update("images", 2)
    assert capsys.readouterr() == ("", "")


def test_the_help_of_train_names_the_bundled_data_that_recipes_have_by_default(i2i: Run) -> None:
    from i2i.training.job import DEFAULT_DATA
    text = re.sub(r"[\s│|]", "", i2i("train", "--help").out)
    assert all(name in text for name in DEFAULT_DATA.values())
