"""Read the tensors in checkpoints of other projects, without running any code in them."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from i2i.convert.unpickle import read_network
from i2i.errors import RequestError

# About unusual pickles and TorchScript, which are refused anyway.
for start in ("Detected pickle protocol", "'torch.load' received a zip file", "Validating sparse tensor"):
    warnings.filterwarnings("ignore", start, UserWarning)
AVERAGE = "G_ema"       # What NVIDIA's projects call the averaged generator.
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v")


def read_tensors(path: Path) -> dict[str, Tensor]:
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
    if not isinstance(tensors, dict) or not tensors or not all(map(_is_plain, tensors.values())):
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
    return _generator(data) if isinstance(data, dict) else data


def _generator(data: dict[Any, Any]) -> Any:
    """The generator in a file that may hold more: NVIDIA's average, or FastGAN's `g` with the average of its
    parameters as a list beside it."""
    if isinstance(found := data.get("g"), dict) and isinstance(average := data.get("g_ema"), list):
        parameters = [key for key in found if not str(key).endswith(BUFFERS)]
        return found | dict(zip(parameters, average, strict=True))
    return data.get(AVERAGE, data.get("g", data))


def _is_plain(value: Any) -> bool:
    """Whether this is a tensor of real numbers, all of which are in the file."""
    return (isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
            and not value.is_quantized and not value.is_complex()
            and value.numel() * value.element_size() <= value.untyped_storage().nbytes())
