"""The device a job runs on, for training and inference alike."""

import os

import torch

from i2i.errors import RequestError

DEVICES = ("auto", "cpu", "cuda", "mps")


def num_launched() -> int:
    """Number of processes of this job that a launcher (torchrun, accelerate launch) started, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def best_device(name: str = "auto") -> torch.device:
    """The device of this name, RequestError if it is not available; `auto` takes a GPU if there is one.

    `auto` respects `accelerate launch --cpu`.  MPS is only for jobs of one process: others would have to
    exchange tensors.
    """
    usable = {"cuda": torch.cuda.is_available(), "cpu": True,
              "mps": torch.backends.mps.is_available() and num_launched() < 2}
    available = [each for each in ("cuda", "mps", "cpu") if usable[each]]
    if name not in DEVICES:
        raise RequestError(f"--device {name} is not known; accepted: {', '.join(DEVICES)}")
    if name == "auto":
        cpu_forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "y", "on", "t")
        return torch.device("cpu" if cpu_forced else available[0])
    if name not in available:
        reason = "this machine or this build of torch has none"
        if name == "mps" and torch.backends.mps.is_available():
            reason = "several processes cannot share their work on MPS"
        raise RequestError(f"--device {name}: {reason}; accepted: {', '.join(['auto', *available])}")
    return torch.device(name)
