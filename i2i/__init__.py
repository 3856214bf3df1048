"""Image-to-image translation: train, translate, evaluate.  `from i2i import load, train`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i2i.augmentation import Mixed, Translate
    from i2i.chain import Chain
    from i2i.infer import Model, load
    from i2i.training import train

__version__ = "0.1.0"
__all__ = ["Chain", "Mixed", "Model", "Translate", "__version__", "load", "train"]
_HOMES = {"load": "i2i.infer", "Model": "i2i.infer", "Chain": "i2i.chain", "train": "i2i.training",
          "Mixed": "i2i.augmentation", "Translate": "i2i.augmentation"}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'i2i' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
