import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from i2i.errors import JobError, RequestError
from i2i.files import write_atomically
from i2i.runs import checkpoint, log
from i2i.runs.folder import RunFolder

TENSORS = {"x": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


def test_tensors_and_header_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, TENSORS | {"t": torch.arange(6.0).reshape(2, 3).t()}, {"kind": "state", "step": 4})
    tensors, header = checkpoint.load(path, "state")
    assert header == {"kind": "state", "step": 4}
    assert torch.equal(tensors["x"], TENSORS["x"])
    assert torch.equal(tensors["t"], TENSORS["x"].t())
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_is_no_checkpoint_is_reported_in_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    checkpoint.save(good, TENSORS, {"kind": "state"})
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-4])
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "zero.safetensors").touch()
    save_file(TENSORS, tmp_path / "foreign.safetensors")
    for name, words in {"cut": "truncated", "text": "truncated", "zero": "truncated", "foreign": "not one of i2i", "absent": "does not exist"}.items():
        with pytest.raises(RequestError, match=words) as error:
            checkpoint.load(tmp_path / f"{name}.safetensors", "state")
        assert "\n" not in str(error.value)
    with pytest.raises(RequestError, match="holds a state, not a model"):
        checkpoint.load(good, "model")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(JobError, match="No space left"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_place_that_is_no_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="could not be written"):
        write_atomically(tmp_path / "file" / "x", lambda part: part.touch())


def test_a_full_disk_while_saving_a_checkpoint(tmp_path: Path) -> None:
    """A file-size limit makes every write past it fail, as a full disk does."""
    code = f"""
import resource, torch, sys
from pathlib import Path
from i2i.runs import checkpoint
from i2i.errors import JobError
path = Path({str(tmp_path)!r}) / "s.safetensors"
checkpoint.save(path, {{"x": torch.zeros(10)}}, {{"kind": "state", "step": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoint.save(path, {{"x": torch.zeros(100_000)}}, {{"kind": "state", "step": 2}})
except JobError as error:
    print(error)
print(checkpoint.load(path, "state")[1]["step"])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "could not be written" in out[0]
    assert "File too large" in out[0]
    assert out[-1] == "1"
    assert os.listdir(tmp_path) == ["s.safetensors"]


def test_logs_are_cut_back_and_half_lines_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for images in (10, 20, 30):
        log.append(path, {"images": images, "loss": images / 7})
    with open(path, "a") as file:
        file.write('{"images": 40, "lo')
    log.cut(path, 20)
    assert [entry["images"] for entry in log.read(path)] == [10, 20]
    log.append(path, {"images": 30})
    assert [entry["images"] for entry in log.read(path)] == [10, 20, 30]
    assert log.read(path)[1]["loss"] == 20 / 7
    log.cut(tmp_path / "absent", 3)


def test_a_run_folder_is_made_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "r")
    folder.create({"a": 1})
    assert folder.read_config() == {"a": 1}
    with pytest.raises(RequestError, match="--resume"):
        folder.create({"a": 1})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RequestError, match="not empty"):
        RunFolder(tmp_path / "other").create({})
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "r").create({})


def test_what_is_no_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        RunFolder(tmp_path / "x").read_config()
    with pytest.raises(RequestError, match=r"no config\.json"):
        RunFolder(tmp_path).read_config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RequestError, match="cannot be read"):
        RunFolder(tmp_path).read_config()


def test_one_trainer_at_a_time(tmp_path: Path) -> None:
    code = f"from i2i.runs.folder import RunFolder; RunFolder({str(tmp_path)!r}).lock(); print('locked')"

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    folder = RunFolder(tmp_path)
    folder.lock()
    assert "another process is training" in other().stderr
    folder.unlock()
    assert other().stdout == "locked\n"


def test_states_are_in_order(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for images in (5, 123456789, 40):
        folder.state(images).touch()
    assert [path.name for path in folder.states()] == ["state-00000005.safetensors", "state-00000040.safetensors", "state-123456789.safetensors"]
    assert json.dumps(str(folder.sample(7))).endswith('samples/00000007.png"')
