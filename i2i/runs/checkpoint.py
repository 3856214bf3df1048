"""Checkpoints: tensors by name, a JSON header and a checksum of both in one safetensors file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from i2i.errors import JobError, RequestError
from i2i.files import write_atomically

# In the metadata of the file.  The checksum is within the header: safetensors orders several keys by chance,
# and files of equal runs are to be equal byte by byte.
HEADER_KEY, CHECKSUM_KEY = "i2i", "sha256"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool}
MAX_HEADER_BYTES = 32 * 2**20       # Of names, shapes and offsets; a network of 10,000 layers has 2 MB.


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header atomically.  JobError if that fails or cannot be read back."""
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    header = {**header, CHECKSUM_KEY: checksum(tensors, json.dumps(header))}
    metadata = {HEADER_KEY: json.dumps(header)}

    def write(part: Path) -> None:
        try:
            save_file(tensors, part, metadata)
        except SafetensorError as error:        # Of a full disk, with the system's message.
            raise JobError(f"{path} could not be written: {error}") from None
        if not _has_contents(part, tensors, metadata):
            raise JobError(f"{path} was written, but could not be read back as it was; the old file stays")

    write_atomically(path, write)


def save_state_dict(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors atomically as a PyTorch file, for other projects: the only pickle that i2i writes, which
    `torch.load(weights_only=True)` reads.  JobError if that fails."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda part: torch.save(plain, part))


def in_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of single precision in half of the bytes, but those with values that half precision cannot
    hold."""
    halves = {name: tensor.half() if tensor.dtype == torch.float32 else tensor
              for name, tensor in tensors.items()}
    return {name: half if half.isfinite().all() else tensors[name] for name, half in halves.items()}


def load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and verify tensors and header of a "model" or "state".  RequestError if damaged or other."""
    header = _read_header(path, kind)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping.
    except (SafetensorError, OSError, RuntimeError) as error:
        raise RequestError(f"{path} is damaged ({str(error).splitlines()[0]})") from None
    if CHECKSUM_KEY not in header:
        raise RequestError(f"{path} has no checksum: it was made by an older version of i2i; train it again")
    if header.pop(CHECKSUM_KEY) != checksum(tensors, json.dumps(header)):
        raise RequestError(f"{path} is damaged: its content does not have its checksum")
    return tensors, header


def read_header(path: Path, kind: str) -> dict[str, Any]:
    """The header alone, without verifying the checksum."""
    return {key: value for key, value in _read_header(path, kind).items() if key != CHECKSUM_KEY}


def _read_header(path: Path, kind: str) -> dict[str, Any]:
    if not path.exists():
        raise RequestError(f"{path} does not exist")
    _check_size(path)
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{path} is damaged, truncated or not a safetensors file ({error})") from None
    try:
        header = json.loads(text or "")
    except (ValueError, RecursionError):
        header = None
    found = header.get("kind") if isinstance(header, dict) else None
    if found not in ("model", "state"):
        raise RequestError(f"{path} is a safetensors file, but not one of i2i")
    if found != kind:
        raise RequestError(f"{path} holds a {found}, not a {kind}")
    return header


def shapes(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of each tensor, without reading any.  Call `read_header` before."""
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping.
            return {name: (tuple(part.get_shape()), DTYPES[part.get_dtype()])
                    for name, part in slices.items()}
    except (SafetensorError, OSError, KeyError) as error:
        raise RequestError(f"{path} is damaged ({str(error).splitlines()[0]})") from None


def checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of the header's text and, name by name, of each tensor's type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(_bytes(tensor).numpy().data)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def subset(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix.`, which is removed."""
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items()
            if name.startswith(f"{prefix}.")}


def _check_size(path: Path) -> None:
    """RequestError for what is not a file, and for a header that would take minutes to read."""
    if not path.is_file():
        raise RequestError(f"{path} is not a file")
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    if length > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise RequestError(f"{path} is damaged, truncated or not a safetensors file (its header would have "
                           f"{length:,} bytes)")


def _has_contents(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether a file has this metadata and these tensors, read one by one to save memory."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() == metadata and set(file.keys()) == set(tensors)
                    and all(torch.equal(_bytes(file.get_tensor(name)), _bytes(tensor))
                            for name, tensor in tensors.items()))
    except SafetensorError:
        return False
