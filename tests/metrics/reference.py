"""Weights by the formula of tests/reference/README.md, and the reference pictures."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

REFERENCE = Path(__file__).parents[1] / "reference"


def generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")))


def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor of a network, by its name alone."""
    g = generator(name)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith("running_var"):
        values = 1 + 0.2 * g.random(shape)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * g.standard_normal(shape)
    elif ".bn." in name:
        values = 1 + 0.1 * g.standard_normal(shape)
    else:
        values = g.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values).astype(np.float32))


def inception_state() -> dict[str, torch.Tensor]:
    checks = json.loads((REFERENCE / "inception" / "weights_checksum.json").read_text())
    return {name: tensor(name, tuple(entry["shape"])) for name, entry in checks.items()}


def picture(name: str) -> np.ndarray:
    return np.asarray(Image.open(REFERENCE / "inception" / "images" / name).convert("RGB"))
