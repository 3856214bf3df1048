"""Read the tensors in checkpoints of other projects, without running any code in them."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from i2i.convert.unpickle import read_network
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.registry import Spec, build

# About unusual pickles and TorchScript, which are refused anyway.
for start in ("Detected pickle protocol", "'torch.load' received a zip file"):
    warnings.filterwarnings("ignore", start, UserWarning)
Tensors = dict[str, Tensor]
AVERAGE = "G_ema"       # What NVIDIA's projects call the averaged generator.


class Generator(NamedTuple):
    """A converted generator: its architecture, our state dict, and the sizes and channels of its images."""

    spec: Spec
    tensors: Tensors
    info: DataInfo


def misfit(project: str, difference: str) -> RequestError:
    """The error for a generator that differs from those of its project."""
    return RequestError(f"this looks like a generator of {project} but does not fit it: {difference}")


def fit(project: str, kind: str, spec: Spec, info: DataInfo,
        renamed: Mapping[str, tuple[str, Tensor]]) -> Generator:
    """A generator from our name and the tensor by their name; RequestError where they do not fit."""
    with torch.device("meta"):
        network = build(kind, spec, *(
            (info.a_channels, info.b_channels, info.size) if kind == "generator" else
            (info.b_channels, info.size, info.num_classes)))
    expected: Tensors = network.state_dict()
    tensors = {name: torch.zeros((), dtype=torch.int64) for name in expected
               if name.endswith("num_batches_tracked")}         # Missing in files from before torch 0.4.1.
    for key, (name, tensor) in renamed.items():
        if name not in expected or expected[name].squeeze().shape != tensor.squeeze().shape:
            raise misfit(project, f"unexpected {key} {tuple(tensor.shape)}")
        tensors[name] = tensor.detach().to(expected[name].dtype).reshape(expected[name].shape).clone()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise misfit(project, f"nothing for {missing[0]}")
    return Generator(spec, tensors, info)


def read_tensors(path: Path) -> Tensors:
    """Read the state dict of a network, the averaged generator if there are several, from a .pth, .npz or
    .safetensors file or a network pickle (.pkl).  RequestError for anything else."""
    if not path.is_file():
        raise RequestError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    kind = {".pkl": "a network pickle", ".npz": "arrays", ".safetensors": "a safetensors file"}.get(
        path.suffix.lower(), "a PyTorch file")
    try:
        tensors = _read(path)
    except RequestError:
        raise
    except pickle.UnpicklingError:
        raise RequestError(f"{path} holds more than tensors, or is no PyTorch file; it was not loaded. "
                           "Accepted: a state dict such as latest_net_G.pth") from None
    except Exception as error:      # Files that are cut or damaged make the libraries raise anything.
        reason = str(error).partition("\n")[0]
        reason = f": {reason}" if " " in reason else ""         # A mere key explains nothing.
        raise RequestError(f"{path} cannot be read as {kind}{reason}") from None
    is_dict = isinstance(tensors, dict) and all(isinstance(value, Tensor) for value in tensors.values())
    if not is_dict or not tensors:
        raise RequestError(f"{path} is not a state dict of tensors; accepted: a generator such as "
                           "latest_net_G.pth")
    tensors = {str(key).removeprefix("module."): value for key, value in tensors.items()}
    return {key.removeprefix(f"{AVERAGE}."): value for key, value in tensors.items()
            if key.startswith(f"{AVERAGE}.")} or tensors


def _read(path: Path) -> Any:
    match path.suffix.lower():
        case ".pkl":
            return read_network(path, AVERAGE)
        case ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        case ".safetensors":
            return load_file(path)
    data = torch.load(path, map_location="cpu", weights_only=True)
    return data.get(AVERAGE, data) if isinstance(data, dict) else data
