"""Image-to-image translation: train, translate, evaluate.  `from i2i import load, train`."""

import importlib
from typing import TYPE_CHECKING, Any

from i2i.config import VERSION as __version__

if TYPE_CHECKING:
    from i2i.inference.integrations import Mixed, Translate
    from i2i.inference.model import Model, load
    from i2i.inference.translator import Chain
    from i2i.registry.plugins import load_plugin
    from i2i.training.train import train

__all__ = ["Chain", "Mixed", "Model", "Translate", "__version__", "load", "load_plugin", "train"]
_HOMES = {"load": "i2i.inference.model", "Model": "i2i.inference.model", "Chain": "i2i.inference.translator",
          "train": "i2i.training.train", "load_plugin": "i2i.registry.plugins",
          "Mixed": "i2i.inference.integrations", "Translate": "i2i.inference.integrations"}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'i2i' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
