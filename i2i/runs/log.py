"""Append-only JSON lines that can be cut back to a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2i.errors import JobError
from i2i.runs.folder import write_atomically


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """One entry as one line; JobError if the disk refuses."""
    try:
        with open(path, "a") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise JobError(f"{path} could not be written: {error.strerror}") from None


def read(path: Path) -> list[dict[str, Any]]:
    """All whole entries; what a crash cut off, or a disk damaged, is left out."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(entry := json.loads(line), dict):
                entries.append(entry)
    return entries


def cut(path: Path, images: int) -> None:
    """Drop what was written after so many images, so that a resumed run writes it again."""
    if path.exists():
        kept = [entry for entry in read(path) if isinstance(at := entry.get("images"), int) and at <= images]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(path, lambda new: _write(new, text))


def _write(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
