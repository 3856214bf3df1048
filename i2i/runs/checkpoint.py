"""Tensors by name and a JSON header in one safetensors file.  No pickle is written, none is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from i2i.errors import RequestError
from i2i.runs.folder import write_atomically

_KEY = "i2i"        # The header's place in the file's metadata.


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header in one step; JobError if the disk refuses, and what was there before stays."""
    whole = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda part: save_file(whole, part, {_KEY: json.dumps(header)}))


def load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file of this kind ("model" or "state"); RequestError says what the file is instead."""
    header = read_header(path, kind)
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a mapping.


def read_header(path: Path, kind: str) -> dict[str, Any]:
    """The header alone."""
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{path} is damaged, truncated or not a safetensors file ({error})") from None
    try:
        header = json.loads(text or "")
    except ValueError:
        raise RequestError(f"{path} is a safetensors file, but not one of i2i") from None
    if header.get("kind") != kind:
        raise RequestError(f"{path} holds a {header.get('kind')}, not a {kind}")
    return header


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix.`, without it."""
    return {name[len(prefix) + 1:]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}
