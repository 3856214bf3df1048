"""Image-to-image translation: train, translate, evaluate.  `from i2i import load, train`."""

import importlib
from typing import TYPE_CHECKING, Any

from i2i.config import VERSION as __version__
from i2i.errors import JobError, RequestError

if TYPE_CHECKING:
    from i2i.inference.batch_translator import BatchTranslator
    from i2i.inference.integrations import Mixed, Translate
    from i2i.inference.model import Model, load
    from i2i.inference.translator import Chain
    from i2i.registry.plugins import load_plugin
    from i2i.training.callbacks.base import Callback
    from i2i.training.train import train

# The public API (docs/api.md).
__all__ = ["BatchTranslator", "Callback", "Chain", "JobError", "Mixed", "Model", "RequestError", "Translate",
           "__version__", "load", "load_plugin", "train"]
_MODULES = {"inference.batch_translator": ("BatchTranslator",),
            "inference.integrations": ("Mixed", "Translate"),
            "inference.model": ("Model", "load"), "inference.translator": ("Chain",),
            "training.callbacks.base": ("Callback",), "registry.plugins": ("load_plugin",),
            "training.train": ("train",)}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is used."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"i2i.{module}"), name)
    raise AttributeError(f"module 'i2i' has no attribute {name!r}")
