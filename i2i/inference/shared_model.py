"""Models that the callers in a process share."""

from functools import lru_cache
from pathlib import Path

from i2i.inference.model import Model, load
from i2i.inference.model_file import find_model


@lru_cache(maxsize=4)
def _load(path: str, device: str, changed: int) -> Model:
    """A model, once in each process until its file changes."""
    return load(path, device)


def load_shared(path: str | Path, device: str = "auto") -> Model:
    """`i2i.load`, which reads a model once in each process until its file changes.

    What one caller sets, such as the number of steps, is as trained again for the next; they take turns.
    """
    file = find_model(path)
    changed = file.stat().st_mtime_ns if file.exists() else 0       # If not, reading it says so.
    model = _load(str(path), device, changed)
    model.statistics = "running"
    model.set_sampling()
    return model
