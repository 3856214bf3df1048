"""Files that cannot be read, names that are hard to write, loaders that fail: named in one line, stopped or passed over as asked, never a hang."""

import builtins
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import i2i as package
from i2i.cli import train as command
from i2i.data import loader
from i2i.data.loader import batches
from i2i.data.paired import find_paired
from i2i.data.sources import Folder, Unreadable, load_image, open_source
from i2i.data.unpaired import find_unpaired
from i2i.errors import JobError, printable
from i2i.images.format import ImageFormat
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.training.trainer import Trainer
from tests.conftest import SMALL, Run, drawing
from tests.training.test_resume import StopAfter, assert_same

KINDS = (ImageFormat(3), ImageFormat(3))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:80])


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 9_500)).save(path)      # 24 kB that unpack to 190 million pixels.


def text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def vanish(path: Path) -> None:
    path.unlink()


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "truncated"), "zero bytes": (lambda path: path.write_bytes(b""), "empty file"), "not an image": (text, "not an image"),
    "decompression bomb": (bomb, "decompression bomb"), "dangling link": (dangling, "No such file"), "link to itself": (loop, "symbolic link"),
    "named pipe": (pipe, "not a regular file"), "vanished after listing": (vanish, "No such file")}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """40 strips, so that files exist which are met by the loader first: before training 16 are looked at."""
    (tmp_path / "many" / "train").mkdir(parents=True)
    for i in range(40):
        Image.fromarray(drawing(i)).save(tmp_path / "many" / "train" / f"{i:02}.png")
    return tmp_path / "many"


def train_words(data: Path, *more: object) -> list[object]:
    return ["train", "pix2pix", *SMALL, "--data", data, "--device", "cpu", "train.checkpoint_every=1000", *more]


def take(folder: Path, n: int, *, on_error: str = "stop", workers: int = 0, skipped: list[Unreadable] | None = None, kind: str = "paired") -> list[object]:
    find = {"paired": find_paired, "unpaired": find_unpaired}[kind]
    data = find(open_source(folder))["train"].for_training((32, 32), (36, 36), KINDS, seed=1, on_error=on_error)
    return list(islice(batches(data, start=0, batch_size=4, num_workers=workers, on_skip=skipped.append if skipped is not None else None), n))


# ---------------------------------------------------------------------------------------------- files

@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "vanished after listing"])
def test_reading_names_the_fault(strips: Path, fault: str) -> None:
    path = strips / "train" / "04.png"
    FAULTS[fault][0](path)
    source = open_source(strips)
    assert "train/04.png" in source.names()
    with pytest.raises(Unreadable, match=FAULTS[fault][1]) as error:
        load_image(source, "train/04.png")
    assert error.value.name.endswith("train/04.png")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_the_stream_stops_at_a_fault_or_goes_on_without_it(strips: Path, fault: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = strips / "train" / "04.png"
    if fault == "vanished after listing":       # Listed, then gone.
        names = Folder(strips).names()
        monkeypatch.setattr(Folder, "names", lambda self: names)
    FAULTS[fault][0](path)
    with pytest.raises(JobError, match=rf"train/04\.png: .*{FAULTS[fault][1]}.*--on-error skip"):
        take(strips, 5, kind=kind)
    skipped: list[Unreadable] = []
    assert len(take(strips, 5, on_error="skip", skipped=skipped, kind=kind)) == 5
    assert {problem.name for problem in skipped} == {str(path)}


def test_permission_denied_is_reported(strips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.open

    def refuse(path: object, *words: object, **options: object) -> object:
        if str(path).endswith("04.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, *words, **options)      # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(JobError, match=r"04\.png: Permission denied"):
        take(strips, 5)


def test_a_mislabeled_picture_is_read_for_what_it_is(strips: Path) -> None:
    path = strips / "train" / "04.png"
    Image.open(path).save(path, "jpeg")
    assert load_image(open_source(strips), "train/04.png").array.shape == (32, 64, 3)


def test_a_folder_called_like_a_picture_and_a_loop_of_folders_are_no_pictures(strips: Path) -> None:
    before = open_source(strips).names()
    (strips / "train" / "x.png").mkdir()
    (strips / "train" / "again").symlink_to(strips)
    (strips / "one").symlink_to("two")
    (strips / "two").symlink_to("one")
    assert open_source(strips).names() == before


ODD = ["with space.png", "new\nline.png", "größe.png", os.fsdecode(b"bytes\xff\xfe.png"), "'quoted'.png", "-dash.png", "esc\x1b[31m.png"]


def test_odd_names_are_trained_on_translated_and_reported_in_one_line(tmp_path: Path, i2i: Run, trained: Path) -> None:
    (tmp_path / "odd" / "train").mkdir(parents=True)
    for i, name in enumerate(ODD):
        Image.fromarray(drawing(i)).save(str(tmp_path / "odd" / "train" / name), "png")
    assert i2i(*train_words(tmp_path / "odd", "--out", "run", "--epochs", 1)).code == 0
    assert i2i("translate", trained, tmp_path / "odd", "--out", "out", "--device", "cpu").code == 0
    assert sorted(os.listdir(tmp_path / "out" / "train")) == sorted(ODD)
    for name in ODD:
        (tmp_path / "odd" / "train" / name).write_bytes(b"")
    result = i2i("translate", trained, tmp_path / "odd", "--out", "out", "--device", "cpu")
    assert result.code == 1
    lines = result.err.strip().splitlines()
    assert [line.split(": ")[0] for line in lines] == ["failed"] * len(ODD) + ["error"]
    assert "\x1b" not in result.err
    assert sum(printable(name) in result.err for name in ODD) == len(ODD)


# ---------------------------------------------------------------------------------------------- the command line

@pytest.mark.parametrize("workers", [0, 1])
def test_train_stops_at_a_late_fault_and_goes_on_when_told_to_skip(many: Path, i2i: Run, workers: int) -> None:
    """Stopped between two steps with everything saved; continued with --on-error skip, to the same end as a run that skipped all along."""
    truncate(many / "train" / "01.png")
    text(many / "train" / "30.png")
    words = [f"train.num_workers={workers}", "--epochs", 2]
    result = i2i(*train_words(many, "--out", "run", *words))
    assert result.code == 1
    assert "train/" in result.line
    assert "--on-error skip" in result.line
    assert "i2i train --resume run" in result.line
    assert len(RunFolder("run").states()) == 2
    result = i2i("train", "--resume", "run", "--on-error", "skip", "--device", "cpu")
    assert result.code == 0, result.err
    assert "2 files skipped as not readable" in result.out
    assert result.out.count("skipped: ") == 2
    assert i2i(*train_words(many, "--out", "straight", *words, "--on-error", "skip")).code == 0
    assert_same(Path("straight"), Path("run"))
    entries = log.read(RunFolder("run").skipped)
    assert {Path(entry["file"]).name for entry in entries} == {"01.png", "30.png"}
    assert all(entry["reason"] for entry in entries)
    assert RunFolder("run").skipped.read_text() == RunFolder("straight").skipped.read_text()


def test_skipped_files_are_listed_once_also_in_a_run_that_was_interrupted(many: Path, tmp_path: Path) -> None:
    for i in (1, 4, 30):
        truncate(many / "train" / f"{i:02}.png")
    words = ["pix2pix", *SMALL, "data.on_error=skip", "train.images=120"]
    package.train(*words, data=many, out=tmp_path / "straight", device="cpu")
    for stop in (10, 50):
        with pytest.raises(KeyboardInterrupt):
            package.train(*(words if stop == 10 else []), data=many if stop == 10 else None, out=tmp_path / "cut" if stop == 10 else None,
                          resume=None if stop == 10 else tmp_path / "cut", device="cpu", callbacks=[StopAfter(stop)])
    package.train(resume=tmp_path / "cut", device="cpu")
    assert (tmp_path / "cut" / "skipped.jsonl").read_text() == (tmp_path / "straight" / "skipped.jsonl").read_text()
    assert len(log.read(tmp_path / "cut" / "skipped.jsonl")) == 3


def test_on_error_takes_two_words(i2i: Run, trained: Path, many: Path) -> None:
    assert "stop or skip" in i2i(*train_words(many, "--on-error", "go")).line
    assert "stop or skip" in i2i("translate", trained, many, "--out", "out", "--on-error", "go").line


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "vanished after listing"])
def test_translate_stops_at_a_fault_or_does_the_rest(strips: Path, i2i: Run, trained: Path, fault: str) -> None:
    FAULTS[fault][0](strips / "test" / "02.png")
    words = ["translate", trained, strips / "test", "--out", "out", "--half", "left", "--device", "cpu"]
    result = i2i(*words, "--on-error", "stop")
    assert result.code == 1
    assert "02.png" in result.line
    assert FAULTS[fault][1] in result.line
    result = i2i(*words, "--skip-existing")
    assert result.code == 1
    assert "1 of 4 images could not be translated" in result.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["00.png", "01.png", "03.png"]


def test_translate_names_what_fails_in_unforeseen_ways(strips: Path, i2i: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from i2i.inference import translate
    decode = translate.decode_bytes
    monkeypatch.setattr(translate, "decode_bytes", lambda name, *rest: 1 // 0 if name.endswith("/02.png") else decode(name, *rest))
    result = i2i("translate", trained, strips / "test", "--out", "out", "--half", "left", "--device", "cpu")
    assert result.code == 1
    assert "failed: 02.png: ZeroDivisionError: " in result.err
    assert len(list(Path("out").iterdir())) == 3


# ---------------------------------------------------------------------------------------------- loader processes

class Failing(Folder):
    """A folder in which reading one file does something else."""

    def __init__(self, path: Path, name: str, act: Callable[[], object]) -> None:
        super().__init__(path)
        self.name, self.act = name, act

    def read(self, name: str) -> bytes:
        if name == self.name:
            self.act()
        return super().read(name)


def failing(folder: Path, act: Callable[[], object], workers: int, on_error: str = "stop", **timing: float) -> Iterator[dict[str, torch.Tensor]]:
    data = find_paired(Failing(folder, "train/04.png", act))["train"].for_training((32, 32), (36, 36), KINDS, seed=1, on_error=on_error)
    return batches(data, start=0, batch_size=2, num_workers=workers, **timing)


def surprise() -> None:
    raise KeyError("something that nobody foresaw")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unforeseen_error_names_the_file_or_is_passed_over(strips: Path, workers: int) -> None:
    with pytest.raises(JobError, match=r"train/04\.png: KeyError: .*nobody foresaw"):
        list(islice(failing(strips, surprise, workers), 6))
    assert len(list(islice(failing(strips, surprise, workers, "skip"), 6))) == 6


@pytest.mark.parametrize(("number", "words"), [(signal.SIGKILL, "SIGKILL.*out of memory"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_loader_process_that_dies_is_reported_with_the_file_it_read(strips: Path, number: int, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(JobError, match=rf"a loader process was ended by {words}.* while reading .*train/04\.png"):
        list(islice(failing(strips, lambda: os.kill(os.getpid(), number), 2), 6))
    assert time.monotonic() - began < 60        # Not the time-out of minutes.


def test_a_loader_process_that_leaves_is_reported_too(strips: Path) -> None:
    with pytest.raises(JobError, match=r"ended with exit code 3 while reading .*train/04\.png"):
        list(islice(failing(strips, lambda: os._exit(3), 1), 6))


def test_a_loader_process_that_hangs_is_given_up(strips: Path) -> None:
    """Waits through several glances, is then killed although it is stopped, and its file named; one that is only slow is waited for."""
    timing = {"poll_interval": 0.2, "stall_timeout": 3.0}
    assert len(list(islice(failing(strips, lambda: time.sleep(1.0), 1, **timing), 6))) == 6
    began = time.monotonic()
    with pytest.raises(JobError, match=r"no batch .* in 3 s; they are reading .*train/04\.png"):
        list(islice(failing(strips, lambda: os.kill(os.getpid(), signal.SIGSTOP), 2, **timing), 6))
    assert time.monotonic() - began < 60


def test_a_loader_process_that_is_stopped_while_it_hands_over_is_given_up() -> None:
    """The read that waits for the rest of a batch has no time limit of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=lambda: os.kill(os.getpid(), signal.SIGSTOP), daemon=True)
    process.start()
    theirs.close()
    current = loader.CurrentFiles(1)
    current.pids[0] = process.pid
    current.names[0].value = b"04.png"

    def received() -> Iterator[loader.Loaded]:
        yield loader.Loaded({}, (), "")
        ours.recv()

    read, began = loader.supervised(received(), [process], current, stall_timeout=0.5, poll_interval=0.1), time.monotonic()
    next(read)
    time.sleep(1.0)         # A step of the training may take longer than that.
    with pytest.raises(JobError, match=r"no batch .* in 0\.5 s; they are reading 04\.png"):
        next(read)
    assert time.monotonic() - began < 60
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def test_glances_change_nothing(strips: Path) -> None:
    straight = list(islice(failing(strips, lambda: None, 0), 12))
    for one, other in zip(straight, islice(failing(strips, lambda: time.sleep(0.3), 2, poll_interval=0.05), 12), strict=True):
        assert torch.equal(one["a"], other["a"])


class KillLoader(StopAfter):
    """An observer that kills the loader process after so many images; the death is reported while the next steps are computed."""

    def on_step(self, trainer: Trainer, logs: object) -> None:
        if trainer.images == self.images:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)


def test_a_killed_loader_ends_a_run_with_one_line_and_everything_saved(strips: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = train_words(strips, "train.images=60", "train.num_workers=1")
    assert i2i(*words, "--out", "straight").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(command, "terminal_callback", lambda: KillLoader(20))
        result = i2i(*words, "--out", "run")
    assert result.code == 1
    assert re.match(r"error: a loader process was ended by SIGKILL .*; saved at (20|22|24|26) images, .*: i2i train --resume run$", result.line)
    assert i2i("train", "--resume", "run", "--device", "cpu").code == 0
    assert_same(Path("straight"), Path("run"))


def test_nothing_readable_at_all_ends_with_the_last_reason(strips: Path) -> None:
    for path in (strips / "train").iterdir():
        path.write_bytes(np.random.default_rng(0).bytes(100))
    for kind in ("paired", "unpaired"):
        with pytest.raises(JobError, match="not an image"):
            take(strips, 1, on_error="skip", kind=kind)


# ---------------------------------------------------------------------------------------------- large images

@pytest.mark.parametrize("command", ["train", "resume", "translate", "evaluate", "evaluate a model", "check"])
def test_each_command_has_a_limit_of_pixels_that_can_be_raised(command: str, strips: Path, i2i: Run, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if command == "resume":
        assert i2i(*train_words(strips, "data.max_pixels=2048", "train.images=12", "--out", run)).code == 0
        sorted(run.glob("state-*"))[-1].unlink()
    test = strips / "test"
    words: list[object] = {"train": train_words(strips, "--dry-run"), "resume": ["train", "--resume", run, "--device", "cpu"],
                           "translate": ["translate", trained, test, "--out", tmp_path / "out", "--device", "cpu"], "evaluate": ["evaluate", "--real", test, "--fake", test, "--metrics", "l1"],
                           "evaluate a model": ["evaluate", trained, "--data", strips, "--metrics", "l1"], "check": ["data", "check", strips]}[command]
    option = "data.max_pixels" if command in ("train", "resume") else "--max-pixels"
    refused = i2i(*words, f"{option}=2047")
    assert refused.code in (1, 2)
    assert "64 x 32 pixels are more than 2,047, which is refused as a decompression bomb" in refused.out + refused.err
    allowed = i2i(*words, f"{option}=2048")
    assert "decompression bomb" not in allowed.out + allowed.err
    assert allowed.code == 0 or command == "check", allowed.err      # Which finds drawings that are equal.
