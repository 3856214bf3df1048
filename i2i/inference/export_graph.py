"""A trained model as one module from its inputs to its images, and the graph of that module."""

import io
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from copy import deepcopy
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbols
from torch.utils._python_dispatch import TorchDispatchMode

from i2i.errors import RequestError
from i2i.images.format import MAX_VALUE, ImageFormat
from i2i.inference.model import Model
from i2i.nets.padding import pad_to_multiple
from i2i.recipes.base import get_module

# Names of the dimensions of an input that may be of any size, by axis.
ROW_AXES = {0: "batch"}
IMAGE_AXES, PIXEL_AXES = {**ROW_AXES, 2: "height", 3: "width"}, {**ROW_AXES, 1: "height", 2: "width"}
Axes = Mapping[str, Mapping[int, str]]

logging.getLogger("torch.fx.experimental.symbolic_shapes").setLevel(logging.ERROR)


class Exportable(nn.Module):
    """A copy of a model as a module from tensors to images.

    Layers whose computation depends on values or sizes may have a method `prepare_export` that changes that.

    Attributes:
        axes: for each input, the names of the dimensions that may be of any size.
    """

    axes: Axes

    def __init__(self, model: Model, image_format: ImageFormat | None) -> None:
        super().__init__()
        self.recipe, self.networks = model.recipe, deepcopy(model.modules).cpu()
        self.output_format = image_format
        for module in self.networks.modules():
            if callable(method := getattr(module, "prepare_export", None)):
                method()

    def finish(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> the output"""
        images = images.float()
        return images if self.output_format is None else to_pixels(images, self.output_format)


class ExportableTranslator(Exportable):
    """From images of any size to images of that size, padded and cropped as `Model` does.

    Args:
        pixels: whether images are (N, H, W, C) in the values of their formats; else (N, C, H, W) in [-1, 1].
    """

    def __init__(self, model: Model, direction: str, *, pixels: bool = False) -> None:
        side, target = model.sides(direction)
        super().__init__(model, model.formats[target] if pixels else None)
        self.source, self.key = side, model.directions[direction]
        self.input_format = model.formats[side] if pixels else None
        self.multiple, self.min_size = model.multiple, model.min_size
        self.axes = {"image": PIXEL_AXES if pixels else IMAGE_AXES}

    def forward(self, image: Tensor) -> Tensor:
        x = image if self.input_format is None else from_pixels(image, self.input_format)
        height, width = x.shape[2:]
        padded, top, left = pad_to_multiple(x, self.multiple, self.min_size)
        y = self.recipe.generate(self.networks, {self.source: padded})[self.key]
        rows, columns = torch.arange(height) + top, torch.arange(width) + left
        return self.finish(y.index_select(2, rows).index_select(3, columns))


class ExportableGenerator(Exportable):
    """From standard normal noise, and labels and truncation where the model has them, to images."""

    def __init__(self, model: Model, *, pixels: bool = False) -> None:
        super().__init__(model, model.formats["b"] if pixels else None)
        self.truncated = [name for name, module in self.networks.items() if hasattr(module, "truncation")]
        self.axes = {"z": ROW_AXES} | ({"label": ROW_AXES} if model.classes else {})
        self.axes |= {"truncation": {}} if self.truncated else {}

    def forward(self, z: Tensor, label: Tensor | None = None, truncation: Tensor | None = None) -> Tensor:
        for name in self.truncated:
            get_module(self.networks, name).truncation = truncation
        batch = {"eps": z} | ({} if label is None else {"c": label})
        try:
            return self.finish(next(iter(self.recipe.generate(self.networks, batch).values())))
        finally:
            for name in self.truncated:
                get_module(self.networks, name).truncation = 1.0


def from_pixels(image: Tensor, image_format: ImageFormat) -> Tensor:
    """(N, H, W, C) in the values of a format -> (N, C, H, W) in [-1, 1], as `images.convert.to_tensor`"""
    low, high = image_format.limits
    return ((image.permute(0, 3, 1, 2).float() - low) / (high - low) - 0.5) / 0.5


def to_pixels(images: Tensor, image_format: ImageFormat) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> (N, H, W, C) in the values of a format, as `images.convert.to_array`"""
    low, high = image_format.limits
    values = (images + 1) * ((high - low) / 2) + low
    if image_format.dtype != "float32":
        values = values.round().clamp(0, MAX_VALUE[image_format.dtype])
    return values.permute(0, 2, 3, 1).to(getattr(torch, image_format.dtype))


def trace(module: Exportable, inputs: Mapping[str, Tensor]) -> ExportedProgram:
    """The graph of a module for inputs of any size along its axes.

    Args:
        inputs: an example of each, with a batch of 2 or more.

    Raises:
        RequestError: names the layer that has none.
    """
    dims = {name: Dim(name, min=1) for axes in module.axes.values() for name in axes.values()}
    shapes = {name: {axis: dims[dim] for axis, dim in axes.items()} for name, axes in module.axes.items()}
    try:
        with torch.no_grad(), _any_size(), redirect_stderr(io.StringIO()):     # It prints the graph so far.
            return torch.export.export(module.eval(), (), dict(inputs), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(f"{layer_of(module, frames[::-1])} cannot be exported: {reason[:300]}") from None


def find_operation(module: Exportable, inputs: Mapping[str, Tensor], operation: str) -> str:
    """The layer that calls an operation such as `aten.relu.default`, for a message."""
    found: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if str(func).partition(".default")[0] == operation.partition(".default")[0] and not found:
                found.append(layer_of(module, _callers(sys._getframe(1))))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        module(**inputs)
    return found[0] if found else "a layer"


def layer_of(module: Exportable, frames: Sequence[FrameType]) -> str:
    """The innermost layer whose method is among frames, innermost first."""
    names = {id(layer): name for name, layer in module.networks.named_modules() if name}
    for frame in frames:
        layer = frame.f_locals.get("self")
        if isinstance(layer, nn.Module) and id(layer) in names:
            return f"layer {names[id(layer)]} ({type(layer).__name__})"
    return f"recipe {type(module.recipe).__name__}"


def _callers(frame: FrameType | None) -> list[FrameType]:
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def _any_size() -> AbstractContextManager[object]:
    """Let torch.export take sizes of 1 for sizes like others, so that the graph is for these, too."""
    known = hasattr(symbols, "backed_size_oblivious")       # From torch 2.8 on.
    config: Any = symbols
    return config.patch(backed_size_oblivious=True) if known else nullcontext()
