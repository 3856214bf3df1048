"""Weights of reference implementations that no file holds: a rule makes them from their names (tests/reference/README.md)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

# Our names of the tensors of a layer, and those of the reference, whose spectral norm is torch.nn.utils.spectral_norm.
LAYER = {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_var": "running_var", "strength": "weight",
         "parametrizations.weight.original": "weight_orig", "parametrizations.weight.0.u": "weight_u", "parametrizations.weight.0.v": "weight_v"}


def weights_by_rule(checksums: Path, prefix: str, buffers: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """All tensors of a reference's state dict, each compared with its checksum."""
    found = {}
    for key, expected in json.loads(checksums.read_text()).items():
        shape, leaf = expected["shape"], key.rpartition(".")[2]
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256((prefix + key).encode()).digest()[:8], "little")))
        if leaf in ("weight_u", "weight_v"):
            value = buffers[f"buffer.{key}"]
        elif leaf in ("weight", "weight_orig") and len(shape) > 1:
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif leaf == "running_var":
            value = 1 + 0.2 * rng.random(shape)
        else:
            value = 0.1 * rng.standard_normal(shape) + (leaf == "weight")
        value = value.astype(np.float32)
        assert hashlib.sha256(value.tobytes()).hexdigest()[:16] == expected["sha256_16"], key
        found[key] = torch.from_numpy(value)
    return found


@torch.no_grad()
def fill(layers: list[tuple[nn.Module, str]], theirs: dict[str, Tensor]) -> set[str]:
    """Copy the reference's tensors into our layers, given with its name of each; a bias that it lacks is 0.  The names left over."""
    left = set(theirs)
    for layer, prefix in layers:
        for name, tensor in layer.state_dict().items():
            if name in ("num_batches_tracked", "constant"):
                continue
            key = f"{prefix}.{LAYER[name]}"
            if name == "bias" and key not in theirs:
                tensor.zero_()
                continue
            tensor.copy_(theirs[key].reshape(tensor.shape))
            left.remove(key)
    return left
