"""Damage of any kind to a checkpoint is recognized, told in one line, and passed over when a run is resumed."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import i2i as package
from i2i.errors import JobError, RequestError
from i2i.runs import checkpoint, folder
from i2i.runs.folder import RunFolder
from tests.conftest import SMALL, Run
from tests.training.test_resume import assert_same

TENSORS = {"x": torch.arange(600.0).reshape(2, 300), "n": torch.tensor(3), "half": torch.ones(3, dtype=torch.bfloat16), "none": torch.zeros(0, 4)}


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_every_flipped_bit_is_recognized(tmp_path: Path) -> None:
    """One bit anywhere: in the length of the header, the header, the checksum, the tensors."""
    path, broken = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    checkpoint.save(path, TENSORS, {"kind": "state", "step": 4})
    size = path.stat().st_size
    g = np.random.default_rng(0)
    unnoticed, told = 0, []
    for place in [*range(0, size, 7), *range(size - 60, size)]:
        shutil.copy(path, broken)
        flip(broken, place, int(g.integers(8)))
        try:
            tensors, header = checkpoint.load(broken, "state")
        except RequestError as error:
            told.append(str(error))
        else:       # A bit of the padding.
            assert header == {"kind": "state", "step": 4}
            assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
            unnoticed += 1
    assert unnoticed < 5
    assert not [line for line in told if "\n" in line]


def test_every_truncation_is_recognized(tmp_path: Path) -> None:
    path, broken = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    checkpoint.save(path, TENSORS, {"kind": "state", "step": 4})
    data = path.read_bytes()
    for length in range(0, len(data), 11):
        broken.write_bytes(data[:length])
        with pytest.raises(RequestError, match="damaged"):
            checkpoint.load(broken, "state")


def test_the_checksum_covers_names_types_shapes_and_header(tmp_path: Path) -> None:
    one = {"x": torch.zeros(4), "y": torch.ones(4)}
    others = ({"x": torch.zeros(2, 2), "y": torch.ones(4)}, {"x": torch.ones(4), "y": torch.zeros(4)}, {"x": torch.zeros(4), "z": torch.ones(4)},
              {"x": torch.zeros(4, dtype=torch.int32), "y": torch.ones(4)}, {"x": torch.zeros(4)})
    assert len({checkpoint.checksum(each, "{}") for each in (one, *others)} | {checkpoint.checksum(one, "{ }")}) == 7


def test_a_file_of_an_older_version_is_refused_in_one_line(trained: Path, tmp_path: Path, i2i: Run) -> None:
    tensors, header = checkpoint.load(trained / "model.safetensors", "model")
    save_file(tensors, tmp_path / "old.safetensors", {"i2i": json.dumps(header)})
    result = i2i("translate", "old.safetensors", trained / "samples" / "00000000.png", "--out", "out", "--device", "cpu")
    assert result.code == 2
    assert "old.safetensors has no checksum: it was made by an older version of i2i; train it again" in result.line


def test_what_cannot_be_read_back_never_takes_the_place_of_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk, or a thread, that changes what is being written."""
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, TENSORS, {"kind": "state", "step": 1})

    def worse(tensors: dict[str, torch.Tensor], part: Path, metadata: dict[str, str]) -> None:
        save_file(tensors | {"x": tensors["x"] + 1}, part, metadata)

    monkeypatch.setattr(checkpoint, "save_file", worse)
    with pytest.raises(JobError, match="could not be read back"):
        checkpoint.save(path, TENSORS, {"kind": "state", "step": 2})
    monkeypatch.undo()
    assert checkpoint.load(path, "state")[1]["step"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_damaged_model_is_reported_in_one_line(trained: Path, tmp_path: Path, i2i: Run) -> None:
    model = tmp_path / "model.safetensors"
    shutil.copy(trained / "model.safetensors", model)
    flip(model, model.stat().st_size - 1000, 6)
    result = i2i("translate", model, trained / "samples" / "00000000.png", "--out", "out")
    assert result.code == 2
    assert "model.safetensors is damaged" in result.line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["flipped", "truncated", "another run's"])
def test_resume_falls_back_and_says_so(trained: Path, tmp_path: Path, i2i: Run, damage: str) -> None:
    """With a model file that is damaged too; the run ends as if nothing had happened."""
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(trained, tmp_path / "twin")
    run = RunFolder(tmp_path / "run")
    earlier, last = run.states()[-2:]
    if damage == "flipped":
        flip(last, last.stat().st_size - 2000, 3)
    elif damage == "truncated":
        last.write_bytes(last.read_bytes()[:-200])
    else:
        last.write_bytes(last.read_bytes()[:5000] + earlier.read_bytes()[5000:])
    flip(run.model, run.model.stat().st_size - 1)
    result = i2i("train", "--resume", "run", "--device", "cpu")
    assert result.code == 0
    told = [line for line in result.out.splitlines() if last.name in line]
    assert len(told) == 1
    assert "is damaged" in told[0]
    assert f"set aside as {last.stem}.damaged, going on from the state before it, at 16 images" in told[0]
    assert "model.safetensors is damaged: its content does not have its checksum; written anew" in result.out
    last.with_suffix(".damaged").unlink()
    assert_same(tmp_path / "twin", run.path)
    package.load(run.path)


def test_a_model_alone_that_is_damaged_is_written_anew(trained: Path, tmp_path: Path, i2i: Run) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"gone")
    assert i2i("train", "--resume", "run", "--device", "cpu").code == 0
    assert_same(trained, tmp_path / "run")


def test_a_damaged_state_counts_for_nothing_when_older_ones_are_deleted(strips: Path, tmp_path: Path, i2i: Run) -> None:
    """A state that lies ahead of the run is damaged: with keep=1 it would have outlived every whole one."""
    words = ["pix2pix", *SMALL, "train.images=32", "train.keep_checkpoints=1", "--data", strips, "--out", "run", "--device", "cpu"]
    assert i2i("train", *words).code == 0
    run = RunFolder("run")
    whole = run.states()[0]
    ahead = run.state(999)
    shutil.copy(whole, ahead)
    flip(ahead, 3000)
    assert i2i("train", "--resume", "run", "--device", "cpu").code == 0
    assert run.states() == [whole]
    run.state(16).write_bytes(b"older, damaged")
    run.retire(32, 1)
    assert run.states() == [whole]
    shutil.copy(whole, ahead)
    run.retire(32, 1)           # What lies ahead is no reason to delete what is known to be whole.
    assert whole.exists()


def test_what_a_killed_process_left_unfinished_is_deleted(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    left = [tmp_path / "run" / ".state-00000032.safetensors.part", tmp_path / "run" / "samples" / ".00000032.png.part", tmp_path / "run" / ".tmpQhFZSe"]
    for path in left:
        path.write_bytes(b"half")
    package.train(resume=tmp_path / "run", device="cpu")
    assert not any(path.exists() for path in left)
    assert_same(trained, tmp_path / "run")


def test_a_run_killed_before_its_config_was_written_can_be_started_again(strips: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.part").write_text("{")
    folder.RunFolder(tmp_path / "run").create({"a": 1})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_the_checksum_is_cheap(tmp_path: Path) -> None:
    """Against a generous limit: 20 MB/s on a machine where it is forty times as fast."""
    tensors = {"x": torch.rand(5_000_000)}
    began = time.process_time()
    checkpoint.checksum(tensors, "{}")
    assert time.process_time() - began < 1


def test_states_have_a_checksum_and_models_too(trained: Path) -> None:
    for path in (RunFolder(trained).states()[-1], trained / "model.safetensors"):
        checkpoint.load(path, "state" if path.stem.startswith("state") else "model")
    assert load_file(trained / "model.safetensors")


def test_files_of_identical_runs_are_identical_byte_by_byte(trained: Path, tmp_path: Path) -> None:
    """In processes whose hashes of strings differ, too; several times, as two keys come in the right order by chance."""
    code = ("import sys, pathlib, torch; from i2i.runs import checkpoint; "
            "[checkpoint.save(pathlib.Path(sys.argv[1], f'{i}.safetensors'), {n: torch.ones(2) for n in ('b', 'a', 'modules.G.0')}, "
            "{'kind': 'model', 'recipe': {'name': 'x', 'settings': {'z': 1, 'a': 0.1}}, 'step': 4}) for i in range(4)]")
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        subprocess.run([sys.executable, "-c", code, tmp_path / seed], check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert len({path.read_bytes() for path in tmp_path.rglob("*.safetensors")}) == 1
    config = json.loads((trained / "config.json").read_text())
    again = package.train("pix2pix", *SMALL, "train.images=24", data=config["data"]["where"], out=tmp_path / "run", device="cpu")
    for name in ("model.safetensors", RunFolder(trained).states()[-1].name):
        assert (trained / name).read_bytes() == (again / name).read_bytes(), name
