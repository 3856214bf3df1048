"""Read network pickles of stylegan2-ada-pytorch and stylegan3 without running any code in them.

A pickle is a program that names functions and calls them.  Here every name stands for something harmless of
ours or is refused, so that the program can build containers and tensors and nothing else; source code in the
pickle stays text.  Modules are records of a class name and a state (`torch_utils.persistence`), from which
the tensors are collected.
"""

import io
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2i.errors import RequestError

warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)     # Its dtype, too.
ACCEPTED = ("accepted: a network pickle of stylegan2-ada-pytorch, or of stylegan3 with its stylegan2 "
            "configuration")


class _Function:
    """Stands for a function that a pickle calls.  A pickle cannot set attributes of it, nor through it."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("an attribute of a function is set")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of a function is set")


class _Module:
    """A saved module: its tensors and the modules in it."""

    __slots__ = ("state",)

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.state = meta["state"]
        if not isinstance(self.state, dict):
            raise pickle.UnpicklingError("a module without a state")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of a module is set twice")


class _Settings(dict[Any, Any]):
    """A dnnlib.EasyDict, whose attributes are empty, or an array of settings, on which no tensor depends."""

    __slots__ = ()

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _load_storage(data: bytes) -> Tensor:
    """The storage of a tensor, which torch saved as a file within the file, as a flat tensor."""
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        raise _refusal(match[1]) if match else error from None
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage)        # type: ignore[call-overload]


def _rebuild_tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...],
                    *_: Any) -> Tensor:
    view = flat.as_strided(size, stride, offset)        # Raises where it would reach outside of the storage.
    if view.numel() > flat.numel():
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return view.clone()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":        # How protocol 2 writes bytes.
        raise pickle.UnpicklingError(f"bytes written as {encoding}")
    return text.encode("latin1")


ALLOWED: dict[str, Any] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _Function(_Module),
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Function(lambda data, *_: data),
    "torch.storage._load_from_bytes": _Function(_load_storage),
    "_codecs.encode": _Function(_encode),
    "dnnlib.util.EasyDict": _Settings, "dnnlib.EasyDict": _Settings,
    "collections.OrderedDict": _Function(dict),
    **{f"{builtins}.{kind.__name__}": _Function(kind) for builtins in ("builtins", "__builtin__")
       for kind in (dict, set, frozenset)},
    "numpy.ndarray": _Settings, "numpy.dtype": _Settings,
    **{f"numpy.{core}.{function}": _Settings for core in ("core", "_core")       # Before and since numpy 2.
       for function in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")},
}


def _refusal(name: str) -> RequestError:
    return RequestError(f"names {name}, which no such network needs; nothing in it was run; {ACCEPTED}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        name = f"{module}.{name}"
        if name not in ALLOWED:
            raise _refusal(name)
        return ALLOWED[name]


def read_network(path: Path, key: str) -> dict[str, Tensor]:
    """The state dict of the module under `key`; RequestError for anything that is not such a file."""
    try:
        with open(path, "rb") as file:
            data = _Unpickler(file).load()
        module = data.get(key) if isinstance(data, dict) else data
        tensors = dict(_collect_tensors(module, "", set())) if isinstance(module, _Module) else {}
    except RequestError as error:
        raise RequestError(f"{path} {error}") from None
    except Exception as error:      # Damaged files make the unpickler, torch and the above raise anything.
        raise RequestError(f"{path} cannot be read as a network pickle: "
                           f"{(str(error) or type(error).__name__).splitlines()[0]}; {ACCEPTED}") from None
    if not tensors:
        raise RequestError(f"{path} holds no network {key}; {ACCEPTED}")
    return tensors


def _collect_tensors(module: _Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if id(module) in seen:
        raise pickle.UnpicklingError("a module is in two places")       # Or in itself.
    seen.add(id(module))
    for table in ("_parameters", "_buffers"):
        for name, value in module.state[table].items():
            if isinstance(value, Tensor):       # None where a layer has no bias.
                yield f"{prefix}{name}", value
    for name, inner in module.state["_modules"].items():
        if isinstance(inner, _Module):
            yield from _collect_tensors(inner, f"{prefix}{name}.", seen)
