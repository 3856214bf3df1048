"""Tensors by name, a JSON header and a checksum of both in one safetensors file.  No pickle is written, none
is read."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from i2i.errors import JobError, RequestError, Unverified
from i2i.files import write_atomically

# Places of header and checksum in the file's metadata.  Files of version 0.1 have the header alone.
_KEY, _SUM = "i2i", "sha256"
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
         "I64": torch.int64, "I32": torch.int32,
         # What learned things and counts are.
         "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
CHUNK = 2**20                       # Bytes compared at once.
# Bytes: names, shapes and places of tensors.  A network of 10,000 layers has 2 MB.
MAX_HEADER = 32 * 2**20


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header in one step; JobError if the disk refuses or gives back something else, and
    what was there before stays."""
    whole = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header)

    def write(part: Path) -> None:
        metadata = {_KEY: text, _SUM: checksum(whole, text)}
        try:
            save_file(whole, part, metadata)
        except SafetensorError as error:        # Of a full disk, with the system's words.
            raise JobError(f"{path} could not be written: {error}") from None
        if not _holds(part, whole, metadata):
            raise JobError(f"{path} was written, but could not be read back as it was; what was there before "
                           "stays")

    write_atomically(path, write)


def load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file of this kind ("model" or "state"); RequestError says what the file is
    instead, or that it is damaged.

    A file of an older version has no checksum: the warning `Unverified` says so.
    """
    header = read_header(path, kind)
    return _tensors(path), header


def read_header(path: Path, kind: str) -> dict[str, Any]:
    """The header alone, of which nothing is verified."""
    if not path.exists():
        raise RequestError(f"{path} does not exist")
    _check_size(path)
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{path} is damaged, truncated or not a safetensors file ({error})") from None
    try:
        header = json.loads(text or "")
    except (ValueError, RecursionError):
        raise RequestError(f"{path} is a safetensors file, but not one of i2i") from None
    found = header.get("kind") if isinstance(header, dict) else None
    if found not in ("model", "state"):
        raise RequestError(f"{path} is a safetensors file, but not one of i2i")
    if found != kind:
        raise RequestError(f"{path} holds a {found}, not a {kind}")
    return header


def shapes(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of each tensor, of a file whose header has been read; no tensor is."""
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping.
            return {name: (tuple(each.get_shape()), TYPES[each.get_dtype()]) for name, each in slices.items()}
    except (SafetensorError, OSError, KeyError) as error:
        raise RequestError(f"{path} is damaged ({str(error).splitlines()[0]})") from None


def checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of the header's text and, name by name, of each tensor's type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def subset(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix.`, without it."""
    return {name[len(prefix) + 1:]: tensor for name,
            tensor in tensors.items() if name.startswith(prefix + ".")}


def _check_size(path: Path) -> None:
    """RequestError for what is no file, before it is opened, and for a header that would have to be read for
    minutes."""
    if not path.is_file():
        raise RequestError(f"{path} is no file")
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    if length > min(MAX_HEADER, path.stat().st_size):
        raise RequestError(f"{path} is damaged, truncated or not a safetensors file (its header would have "
                           f"{length:,} bytes)")


def _holds(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether a file has this metadata and these tensors' bytes, compared piece by piece: for a second copy
    of a state there may be no room."""
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        try:
            places = json.loads(file.read(start - 8))
        except ValueError:
            return False
        if places.pop("__metadata__", None) != metadata or places.keys() != tensors.keys():
            return False
        for name, tensor in tensors.items():
            file.seek(start + places[name]["data_offsets"][0])
            expected = tensor.reshape(-1).view(torch.uint8).numpy().data
            pieces = (expected[at:at + CHUNK] for at in range(0, len(expected), CHUNK))
            if any(file.read(len(piece)) != piece for piece in pieces):
                return False
    return True


def _tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file whose header is one.  RequestError if they, or the header, are not those of the
    checksum."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping.
    except (SafetensorError, OSError, RuntimeError) as error:
        raise RequestError(f"{path} is damaged ({str(error).splitlines()[0]})") from None
    if metadata.keys() == {_KEY}:
        warnings.warn(f"{path} was written by an older version, without a checksum: damage to its numbers "
                      "would not be noticed",
                      Unverified, stacklevel=3)
    elif metadata.get(_SUM) != checksum(tensors, metadata.get(_KEY, "")):
        raise RequestError(f"{path} is damaged: its content does not have its checksum")
    return tensors
