"""Build a recipe's modules as shapes without memory, and reject settings that ask for absurdly much."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from i2i.errors import RequestError, require
from i2i.recipes.base import DataInfo, Recipe

MAX_MODULES = 10_000    # Modules and parameters of a recipe; StyleGAN2 at 1024 pixels has about 1,000.


def build_on_meta(recipe: Recipe, info: DataInfo) -> nn.ModuleDict:
    """Build the recipe's modules on the meta device.  RequestError if they are too many or too large."""
    with torch.device("meta"), _limit_modules(), check_tensor_sizes():
        return recipe.modules(info)


@contextmanager
def check_tensor_sizes() -> Iterator[None]:
    """Turn the overflow errors that Python and torch raise for oversized tensors into a RequestError."""
    try:
        yield
    except (RuntimeError, OverflowError, TypeError) as error:
        if not isinstance(error, OverflowError) and "overflow" not in str(error).lower():
            raise
        reason = str(error).splitlines()[0][:120]
        raise RequestError(f"a tensor would exceed 2^63 bytes ({reason}); reduce train.batch_size, data.size "
                           "or the widths of the networks") from None


@contextmanager
def _limit_modules() -> Iterator[None]:
    remaining, thread = MAX_MODULES, threading.get_ident()

    def count(module: nn.Module, name: str, child: object) -> None:
        nonlocal remaining
        remaining -= threading.get_ident() == thread        # The hooks are global to the process.
        require(remaining > 0, "layers of the networks", f"more than {MAX_MODULES:,}",
                "fewer: reduce the number of blocks or layers")

    handles = (register_module_module_registration_hook(count),
               register_module_parameter_registration_hook(count))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
