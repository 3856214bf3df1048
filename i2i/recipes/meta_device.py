"""Build a recipe's modules as shapes without memory, and reject settings that ask for absurdly much."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from i2i.errors import RequestError
from i2i.recipes.base import DataInfo, Recipe


def build_on_meta(recipe: Recipe, info: DataInfo) -> nn.ModuleDict:
    """Build the recipe's modules on the meta device.  RequestError if they are too large."""
    with torch.device("meta"), check_tensor_sizes():
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
