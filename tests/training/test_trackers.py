"""Trackers have what the run folder has, once, also after a kill; what fails in them ends no run, and nothing is imported unasked."""

import importlib.util
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import tracking
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import i2i as package
from i2i.runs import log
from i2i.training.callbacks import evaluation, trackers
from tests import forked
from tests.conftest import SMALL, Run
from tests.training.test_resume import StopAfter

WORDS = ("pix2pix", *SMALL, "train.images=26")


@pytest.fixture(autouse=True)
def _evaluations_do_not_depend_on_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "EVALUATION_SHARE", 1e9)


def assert_tensorboard_has_the_run(run: Path) -> None:
    """Each number of the logs once, at its number of images, and each sample grid."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in log.read(run / "log.jsonl"):
        for key, value in line.items():
            if key != "images":
                expected.setdefault(f"train/{key}", []).append((line["images"], value))
    for line in log.read(run / "metrics.jsonl"):
        for key, value in {**{name: score["value"] for name, score in line["scores"].items()}, **line["readings"]}.items():
            expected.setdefault(f"evaluation/{key}", []).append((line["images"], value))
    assert set(events.Tags()["scalars"]) == set(expected)
    for tag, points in expected.items():
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in found] == [step for step, _ in points], tag
        assert [value for _, value in found] == pytest.approx([value for _, value in points], rel=1e-6), tag
    grids = sorted((run / "samples").iterdir())
    shown = events.Images("samples")
    assert [event.step for event in shown] == [int(path.stem) for path in grids]
    (run / "last.png").write_bytes(shown[-1].encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(run / "last.png")), np.asarray(Image.open(grids[-1])))
    (settings,) = events.Tensors("settings/text_summary")
    assert b'"train.batch_size": 2' in settings.tensor_proto.string_val[0]


def test_tensorboard_has_what_the_run_folder_has(strips: Path, i2i: Run) -> None:
    result = i2i("train", *WORDS, "trackers=tensorboard", "--data", strips, "--out", "run", "--device", "cpu")
    assert result.code == 0, result.err
    assert_tensorboard_has_the_run(Path("run"))


def test_no_step_is_there_twice_after_a_signal_and_after_kills(strips: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        package.train(*WORDS, "trackers=tensorboard", data=strips, out=run, device="cpu", callbacks=[StopAfter(10)])
    assert_tensorboard_has_the_run(run)
    work = forked.Work((*WORDS, "trackers=tensorboard"), strips)
    for failpoint, n in (("after-step", 5), ("before-log", 2)):         # Beyond the last state by some lines.
        assert forked.live(work, run, failpoint=failpoint, n=n)[0] != 0
    package.train(*WORDS, "trackers=tensorboard", data=strips, out=run, device="cpu")
    assert_tensorboard_has_the_run(run)


class Fake(tracking.GeneralTracker):
    """Remembers in a file, as a server would, what it is told through accelerate's interface."""

    requires_logging_directory = False
    fails_at = ""

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self.options = {"project": project, **options}
        self.info = type("Info", (), {"run_id": options.get("run_id") or "fresh"})

    @property
    def tracker(self) -> "Fake":
        return self

    def tell(self, kind: str, *details: Any) -> None:
        if kind == self.fails_at:
            raise OSError(28, "No space\nleft on device")
        assert threading.get_ident() == self.thread      # In another one MLflow begins another run.
        with open(self.server, "a") as file:
            file.write(json.dumps([kind, *details], default=str) + "\n")

    def start(self) -> None:
        self.thread = threading.get_ident()
        self.tell("start", self.options)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.tell("settings", values)

    def log(self, values: dict[str, Any], step: int | None = None, **more: Any) -> None:
        self.tell("log", step, values)

    def log_images(self, values: dict[str, Any], step: int | None = None, **more: Any) -> None:
        self.tell("images", step, {key: np.asarray(value).shape for key, value in values.items()})

    def log_artifact(self, local_path: str, artifact_path: str | None = None) -> None:
        self.tell("artifact", Path(local_path).name, artifact_path)

    def finish(self) -> None:
        self.tell("finish")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """wandb and mlflow are installed, and what they get is here."""
    Fake.server, Fake.fails_at = tmp_path / "server.jsonl", ""      # type: ignore[attr-defined]
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, type(name, (Fake,), {"name": name}))
    monkeypatch.setattr(trackers, "check_installed", lambda names: None)
    monkeypatch.setattr("i2i.training.train.check_installed", lambda names: None)
    return Fake.server      # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_others_get_the_same_through_accelerate_and_a_resumed_run_is_the_same_run(server: Path, strips: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        package.train(*WORDS, f"trackers={name}", data=strips, out=run, device="cpu", callbacks=[StopAfter(14)])
    (run / "state-00000014.safetensors").unlink()       # As if killed: the run goes back to 8 images.
    package.train(*WORDS, f"trackers={name}", data=strips, out=run, device="cpu")
    told = [json.loads(line) for line in server.read_text().splitlines()]
    starts = [options for kind, *rest in told if kind == "start" for options in rest]
    assert len(starts) == 2
    if name == "wandb":
        assert starts[0]["id"] == starts[1]["id"]
        assert starts[0]["resume"] == "allow"
    else:
        assert [start["run_id"] for start in starts] == [None, "fresh"]
    (settings,) = [rest[0] for kind, *rest in told if kind == "settings"]
    assert settings["train.batch_size"] == 2
    assert settings["generator"].startswith("unet(")
    steps = [step for kind, step, *values in (each for each in told if each[0] == "log") if "train/l1" in values[0]]
    assert steps == [line["images"] for line in log.read(run / "log.jsonl")]
    assert [step for kind, step, *values in (each for each in told if each[0] == "log") if "evaluation/l1" in values[0]] == \
        [line["images"] for line in log.read(run / "metrics.jsonl")]
    grids = [each[1] for each in told if each[0] == ("images" if name == "wandb" else "artifact")]
    assert grids == [int(path.stem) if name == "wandb" else path.name for path in sorted((run / "samples").iterdir())]
    assert told[-1] == ["finish"]


@pytest.mark.parametrize("moment", ["start", "log", "images", "finish"])
def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(server: Path, strips: Path, i2i: Run, moment: str) -> None:
    Fake.fails_at = moment
    result = i2i("train", *WORDS, "trackers=wandb", "--data", strips, "--out", "run", "--device", "cpu")
    assert (result.code, result.err) == (0, "")
    warnings = [line for line in result.out.splitlines() if "wandb" in line]
    assert warnings == ["warning: train.trackers=wandb failed and is left out from here on; the run goes on, and its folder has everything: "
                        "[Errno 28] No space left on device"]
    assert log.read(Path("run/log.jsonl"))[-1]["images"] == 26


def test_what_is_not_installed_is_reported_before_the_run(strips: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in ("tensorboard", "wandb", "mlflow") else find(name, *more))
    for name, more in (("tensorboard", ()), ("wandb", ()), ("mlflow", ("--dry-run",))):
        result = i2i("train", *WORDS, f"trackers={name}", "--data", strips, "--out", "run", "--device", "cpu", *more)
        assert (result.code, result.out) == (2, "")         # Before the plan is said.
        assert (result.code, result.line) == (2, f"error: train.trackers={name}: {name} is not installed; install it with: {trackers.INSTALL_COMMANDS[name]}")
        assert trackers.INSTALL_COMMANDS[name].endswith(f"[{name}]'")
    assert not Path("run").exists()
    result = i2i("train", *WORDS, "trackers=tensorboards", "--data", strips, "--out", "run")
    assert (result.code, "accepted: tensorboard or wandb or mlflow, or several separated by commas" in result.line) == (2, True)


def test_nothing_is_imported_unasked(strips: Path, tmp_path: Path) -> None:
    code = ("import sys, i2i; i2i.train(*sys.argv[3:], data=sys.argv[1], out=sys.argv[2], device='cpu'); "
            "print([name for name in ('tensorboard', 'torch.utils.tensorboard', 'wandb', 'mlflow') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, strips, tmp_path / "run", *WORDS, "train.images=4"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_trackers_may_be_added_and_removed_when_a_run_is_resumed(strips: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        package.train(*WORDS, data=strips, out=tmp_path / "run", device="cpu", callbacks=[StopAfter(6)])
    with pytest.raises(KeyboardInterrupt):
        package.train("", "trackers=tensorboard", resume=tmp_path / "run", device="cpu", callbacks=[StopAfter(14)])
    package.train("", "trackers=", resume=tmp_path / "run", device="cpu")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/l1")] == [6, 12]     # What the run had before, too.
    assert [event.step for event in events.Images("samples")] == [0, 8]


def train_interrupted_and_resumed(tracker: str, strips: Path, run: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        package.train(*WORDS, f"trackers={tracker}", data=strips, out=run, device="cpu", callbacks=[StopAfter(14)])
    package.train(*WORDS, f"trackers={tracker}", data=strips, out=run, device="cpu")


def logged(run: Path, file: str, key: str) -> list[tuple[int, float]]:
    lines = log.read(run / file)
    return [(line["images"], line[key] if key in line else line["scores"][key]["value"]) for line in lines]


@pytest.mark.slow
def test_mlflow_has_one_run_with_everything(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself, where it is installed: read back by its own client."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = tmp_path / "run"
    train_interrupted_and_resumed("mlflow", strips, run)
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert (found.info.run_name, found.info.status, found.data.params["train.batch_size"]) == ("run", "FINISHED", "2")
    assert client.get_experiment(found.info.experiment_id).name == "i2i"
    for tag, file, key in (("train/l1", "log.jsonl", "l1"), ("evaluation/psnr", "metrics.jsonl", "psnr")):
        assert [(each.step, each.value) for each in client.get_metric_history(found.info.run_id, tag)] == logged(run, file, key)
    assert [Path(each.path).name for each in client.list_artifacts(found.info.run_id, "samples")] == sorted(path.name for path in (run / "samples").iterdir())


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: blocks of 32 KiB after a header, of pieces with a checksum, a length and a type each."""
    from wandb.proto import wandb_internal_pb2
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole, at = whole + data[at + 7:at + 7 + length], at + 7 + length
        if kind in (1, 4):      # A whole record, or the last piece of one.
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.slow
def test_wandb_has_everything_offline(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases itself, where it is installed: read back from the files that `wandb sync` uploads."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    train_interrupted_and_resumed("wandb", strips, run)
    wandb.teardown()        # Its own process writes the files.
    records = [record for path in sorted(run.glob("wandb/offline-run-*/*.wandb")) for record in wandb_records(path)]
    assert len({record.run.run_id for record in records if record.WhichOneof("record_type") == "run"}) == 1
    assert {"train.batch_size": "2"}.items() <= {item.key: item.value_json for record in records for item in record.config.update}.items()
    rows = [{"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item} for record in records if record.WhichOneof("record_type") == "history"]
    for tag, file, key in (("train/l1", "log.jsonl", "l1"), ("evaluation/psnr", "metrics.jsonl", "psnr")):
        assert [(int(row["_step"]), float(row[tag])) for row in rows if tag in row] == logged(run, file, key)
    assert [int(row["_step"]) for row in rows if "samples/count" in row] == sorted(int(path.stem) for path in (run / "samples").iterdir())
