"""Tensors out of other projects' files, without running anything that such a file may hold."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from i2i.convert.unpickle import read_network
from i2i.errors import RequestError

Tensors = dict[str, Tensor]
AVERAGE = "G_ema"       # What NVIDIA's projects call the averaged generator.


def read(path: Path) -> Tensors:
    """The tensors of a generator by name, from a state dict (.pth, .npz, .safetensors) or a network pickle
    (.pkl).  RequestError if the file is something else."""
    if not path.is_file():
        raise RequestError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    readers = {".npz": read_npz, ".safetensors": read_safetensors, ".pkl": read_pickle}
    tensors = readers.get(path.suffix.lower(), read_pth)(path)
    inside = {key.removeprefix(f"{AVERAGE}."): value for key,
              value in tensors.items() if key.startswith(f"{AVERAGE}.")}
    return inside or tensors        # Of several networks the averaged generator.


def read_pickle(path: Path) -> Tensors:
    """The averaged generator of a network pickle."""
    return read_network(path, AVERAGE)


def read_pth(path: Path) -> Tensors:
    """A plain state dict, or the one under "G_ema".  RequestError if the file is something else."""
    if not path.is_file():
        raise RequestError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with warnings.catch_warnings():
            # Of unusual pickles, which are refused below in our own words.
            warnings.simplefilter("ignore")
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise RequestError(f"{path} holds more than tensors, or is no PyTorch file; it was not loaded. "
                           "Accepted: a state dict such as latest_net_G.pth") from None
    except Exception as error:      # A broken zip, an old or cut file: torch raises whatever it met.
        raise _unreadable(path, "a PyTorch file", error) from None
    if isinstance(data, dict) and isinstance(data.get(AVERAGE), dict):
        data = data[AVERAGE]
    if not isinstance(data, dict) or not data or not all(isinstance(v, Tensor) for v in data.values()):
        raise RequestError(f"{path} is not a state dict of tensors; accepted: a generator such as "
                           "latest_net_G.pth")
    return {str(key).removeprefix("module."): value for key, value in data.items()}


def read_npz(path: Path) -> Tensors:
    """Arrays by name, as numpy.savez wrote them."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found: Mapping[str, Any] = {key: arrays[key] for key in arrays.files}
            return {key: torch.from_numpy(value) for key, value in found.items()}
    except Exception as error:      # A broken zip, an array of objects, a type torch does not have.
        raise _unreadable(path, "arrays", error) from None


def read_safetensors(path: Path) -> Tensors:
    """Tensors by name."""
    try:
        return load_file(path)
    except Exception as error:
        raise _unreadable(path, "a safetensors file", error) from None


def _unreadable(path: Path, what: str, error: Exception) -> RequestError:
    reason = str(error).partition("\n")[0]
    # A key alone tells nothing.
    return RequestError(f"{path} cannot be read as {what}" + (f": {reason}" if " " in reason else ""))
