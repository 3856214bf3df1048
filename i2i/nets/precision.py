"""Float32 computations within mixed-precision training."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def fp32_island(x: Tensor) -> AbstractContextManager[object]:
    """Disable autocast on the device of `x`: results have the dtype of their inputs."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def to_float32(x: Tensor) -> Tensor:
    """Cast to float32; float64 stays as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
