"""The memory that networks take, estimated on tensors without data, and the memory that is available."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from i2i.images.memory import available_host_memory
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.meta_device import build_on_meta

OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc",
                          "Cannot allocate memory")
# Pixels of an image that is decoded when its turn comes, and only translated if there is memory for it.
LARGE_IMAGE = 1 << 20
PROBE_SIDE = 512        # Pixels of the image whose translation is estimated.
# Measured over the estimate at 2048x2048 pixels: 1.05 (U-Net) and 1.16 (ResNet), decoding not included.
# Up to 2 at a width of 4: convolutions round channels up to blocks of 4 to 16, by the processor.
OVERHEAD = 1.3


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of live tensors that were made within it, each storage once, and their peak."""

    def __init__(self, ignored: Iterable[Tensor]) -> None:
        super().__init__()
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in ignored}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor) or (key := tensor.untyped_storage()._cdata) in self.sizes:
                continue
            storage = tensor.untyped_storage()
            self.sizes[key] = storage.nbytes()
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._free, key)
        return out

    def _free(self, key: int) -> None:
        self.bytes -= self.sizes.pop(key)


def bytes_per_pixel(recipe: Recipe, info: DataInfo, source: str, multiple: int) -> float:
    """What translating an image of a side takes, by pixel of its padded size, at its peak."""
    modules, side = build_on_meta(recipe, info).eval(), -(-PROBE_SIDE // multiple) * multiple
    live = LiveTensors([*modules.parameters(), *modules.buffers()])
    channels = info.a_channels if source == "a" else info.b_channels
    with torch.no_grad(), live:
        recipe.generate(modules, {source: torch.empty(1, channels, side, side, device="meta")})
    return OVERHEAD * live.peak / side**2


def available_memory(device: torch.device) -> int:
    """Bytes this process can still allocate on a device: within its own, its container's and all memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
                   - torch.cuda.memory_allocated(device))
    return available_host_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or an allocator says that memory is used up."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and (
        str(error) == "could not create a primitive"        # oneDNN's.
        or any(text in str(error) for text in OUT_OF_MEMORY_MESSAGES))


def format_bytes(size: float) -> str:
    """12.3 MB, 1.2 GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
