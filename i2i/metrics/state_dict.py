"""Read weights files without running anything in them."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from i2i.errors import RequestError


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a `.pth` or `.safetensors` file without unpickling code.  RequestError if it is damaged."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    except pickle.UnpicklingError:
        raise RequestError(f"{path} is not a file of plain tensors; accepted: a state dict saved by "
                           "torch.save, or .safetensors") from None
    except Exception as error:      # Truncated zips raise RuntimeError, EOFError or OSError.
        reason = str(error).partition("\n")[0][:100]
        raise RequestError(f"{path} is damaged, truncated or no file of tensors"
                           + (f" ({reason})" if " " in reason else "")) from None
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise RequestError(f"{path} does not hold a state dict")
    return dict(state)


def last_line(error: Exception) -> str:
    """Why tensors do not fit a network, from the many lines of `load_state_dict`."""
    reasons = [line.strip() for line in str(error).splitlines() if line.strip()]
    return reasons[:2][-1][:160]
