"""Network pickles of stylegan2-ada-pytorch and stylegan3, read without running anything that is in them.

A pickle is a program: it names functions and calls them.  Here every name stands for something harmless of
ours or is refused, so the program can build containers and tensors and nothing else; the source code that
these pickles carry stays text.  Their modules are records of a class name and a state
(`torch_utils.persistence`), from which the tensors are collected by their places.
"""

from __future__ import annotations

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

ACCEPTED = "accepted: a network pickle of stylegan2-ada-pytorch, or of stylegan3 with its stylegan2 configuration"


class _Call:
    """What a name that the file calls stands for.  Nothing can be set on it, or on what is reached through
    it."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("an attribute of a function is set")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of a function is set")


class _Record:
    """A module as it was saved: its tensors and the modules in it."""

    __slots__ = ("state",)

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.state = meta["state"]
        if not isinstance(self.state, dict):
            raise pickle.UnpicklingError("a module without a state")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of a module is set twice")


class _Settings(dict[Any, Any]):
    """dnnlib.EasyDict: a dictionary whose attributes, of which there are none, are saved too."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Unused:
    """Something in the file that no tensor of a network depends on, such as an array of settings."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> _Unused:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _storage(data: bytes) -> Tensor:
    """The numbers of a tensor, which torch saved as a file within the file.  -> a flat tensor"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # Typed storages are deprecated.
        try:
            storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            match = re.search(r"GLOBAL (\S+)", str(error))
            raise _refused(match[1]) if match else error from None
        if not isinstance(storage, torch.storage.TypedStorage):
            raise pickle.UnpicklingError("a tensor without numbers")
        return torch.empty(0, dtype=storage.dtype).set_(storage)        # type: ignore[call-overload]


def _tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    view = flat.as_strided(size, stride, offset)        # Refuses what lies outside.
    if view.numel() > flat.numel():
        raise pickle.UnpicklingError("a tensor larger than its numbers")
    return view.clone()


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes written as {encoding}")
    return text.encode("latin1")        # How protocol 2 writes bytes.


_NAMES: dict[str, Any] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _Call(_Record),
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch._utils._rebuild_parameter": _Call(lambda data, *_: data),
    "torch.storage._load_from_bytes": _Call(_storage),
    "_codecs.encode": _Call(_encoded),
    "dnnlib.util.EasyDict": _Settings, "dnnlib.EasyDict": _Settings,
    "collections.OrderedDict": _Call(dict), "builtins.dict": _Call(dict), "builtins.set": _Call(set),
    "builtins.frozenset": _Call(frozenset),
    "__builtin__.dict": _Call(dict), "__builtin__.set": _Call(set), "__builtin__.frozenset": _Call(frozenset),
    "numpy.ndarray": _Unused, "numpy.dtype": _Unused,
    **{f"numpy.{core}.{maker}": _Unused for core in ("core", "_core")        # Before and since numpy 2.
       for maker in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")},
}


def _refused(name: str) -> RequestError:
    return RequestError(f"names {name}, which no such network needs; nothing in it was run; {ACCEPTED}")


class _Reader(pickle.Unpickler):
    """Knows the names above and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for; RequestError for all that need not be there."""
        full = f"{module}.{name}"
        if full not in _NAMES:
            raise _refused(full)
        return _NAMES[full]


def read_network(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of the module under `key`, by their names in its state dict.  RequestError for anything
    that is not such a file."""
    try:
        with open(path, "rb") as file:
            data = _Reader(file).load()
        module = data.get(key) if isinstance(data, dict) else data
        tensors = dict(_tensors(module, "", set())) if isinstance(module, _Record) else {}
    except RequestError as error:
        raise RequestError(f"{path} {error}") from None
    # A cut or broken file; what a stand-in made of arguments that torch would not have written.
    except Exception as error:
        raise RequestError(f"{path} cannot be read as a network pickle: "
                           f"{(str(error) or type(error).__name__).splitlines()[0]}; {ACCEPTED}") from None
    if not tensors:
        raise RequestError(f"{path} holds no network {key}; {ACCEPTED}")
    return tensors


def _tensors(module: _Record, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if id(module) in seen:
        raise pickle.UnpicklingError("a module is in two places")       # In itself, perhaps.
    seen.add(id(module))
    for table in ("_parameters", "_buffers"):
        for name, value in module.state[table].items():
            if isinstance(value, Tensor):       # None where a layer has no bias.
                yield f"{prefix}{name}", value
    for name, inner in module.state["_modules"].items():
        if isinstance(inner, _Record):
            yield from _tensors(inner, f"{prefix}{name}.", seen)
