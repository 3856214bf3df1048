"""One rule for which device a job has."""

import ast
from pathlib import Path

import pytest
import torch

from i2i.errors import JobError, RequestError
from i2i.inference.device import best_device
from i2i.training.distributed import Runtime

ROOT = Path(__file__).parents[1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):     # type: ignore[no-untyped-def]
    def made(*, cuda: bool = False, mps: bool = False, processes: int = 0, accelerate: str = "") -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        for name, value in (("WORLD_SIZE", processes), ("ACCELERATE_USE_CPU", accelerate)):
            monkeypatch.setenv(name, str(value)) if value else monkeypatch.delenv(name, raising=False)
    return made


def test_auto_takes_the_best_there_is(machine) -> None:       # type: ignore[no-untyped-def]
    for there, expected in (({}, "cpu"), ({"cuda": True}, "cuda"), ({"mps": True}, "mps"), ({"cuda": True, "mps": True}, "cuda"),
                            ({"mps": True, "processes": 1}, "mps"), ({"mps": True, "processes": 2}, "cpu"), ({"cuda": True, "processes": 2}, "cuda"),
                            ({"cuda": True, "accelerate": "True"}, "cpu"), ({"cuda": True, "accelerate": "False"}, "cuda")):
        machine(**there)
        assert best_device() == best_device("auto") == torch.device(expected), there
        assert best_device("cpu") == torch.device("cpu")


def test_what_is_asked_for_is_given_or_refused(machine) -> None:      # type: ignore[no-untyped-def]
    machine()
    for make in (best_device, lambda name: Runtime(device=name)):
        with pytest.raises(RequestError, match=r"--device cuda: this machine or this build of torch has none; accepted: auto, cpu$"):
            make("cuda")
        with pytest.raises(RequestError, match="--device tpu is not known; accepted: auto, cpu, cuda, mps"):
            make("tpu")
    machine(cuda=True, mps=True, accelerate="True")
    assert [best_device(name).type for name in ("cpu", "cuda", "mps")] == ["cpu", "cuda", "mps"]
    machine(mps=True, processes=2)
    with pytest.raises(RequestError, match="--device mps: several processes cannot share their work on MPS; accepted: auto, cpu$"):
        best_device("mps")


def test_processes_that_are_no_job_are_refused(machine) -> None:      # type: ignore[no-untyped-def]
    """Rather than each leading: the state of this process was made before it was told of others."""
    Runtime(device="cpu")
    machine(processes=2)
    with pytest.raises(JobError, match="a launcher started 2 processes, which did not become one job on cpu"):
        Runtime()


def test_nothing_else_chooses_a_device() -> None:
    """Asking whether there is a GPU is left to i2i/inference/device.py, but for how much memory there is and what a plan may take."""
    asking = set()
    for path in (ROOT / "i2i").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "is_available" and ast.unparse(node.value) in ("torch.cuda", "torch.backends.mps"):
                asking.add(str(path.relative_to(ROOT / "i2i")))
    assert asking <= {"inference/device.py", "training/plan.py"}
