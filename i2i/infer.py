"""A trained model from one file: load(path).translate(images)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from i2i import recipes  # noqa: F401 - registers the recipes.
from i2i.clock import stable_seed
from i2i.errors import RequestError
from i2i.images import Array, Kind, as_channels, from_pil, to_array, to_pil, to_tensor
from i2i.nets.norms import BatchNorm
from i2i.recipes.base import DataInfo, Recipe
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.spec import from_dict, lookup

Picture = TypeVar("Picture", Image.Image, Array, Tensor)
STATISTICS = ("running", "image")


def best_device(name: str = "auto") -> torch.device:
    """A torch device by name; `auto` takes a GPU where there is one.  RequestError if it is not there."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name not in ("auto", "cpu", found):
        raise RequestError(f"device {name!r} is not available; accepted: auto, cpu" + (f", {found}" if found != "cpu" else ""))
    return torch.device(found if name == "auto" else name)


def header_for(recipe_name: str, settings: Mapping[str, Any], info: DataInfo, kinds: tuple[Kind, Kind], **more: Any) -> dict[str, Any]:
    """What a model file must say of itself so that the file alone is enough."""
    return {"recipe": {"name": recipe_name, "settings": dict(settings)}, "info": vars(info).copy(),
            "kinds": {"a": vars(kinds[0]).copy(), "b": vars(kinds[1]).copy()}, **more}


class Model:
    """A trained translator.  Deterministic unless a seed for the dropout samples is given."""

    def __init__(self, recipe: Recipe, modules: nn.ModuleDict, header: Mapping[str, Any], device: torch.device) -> None:
        self.recipe, self.header, self.device = recipe, header, device
        self.modules = modules.to(device).eval().requires_grad_(False)
        self.kinds = {side: Kind(**kind) for side, kind in header["kinds"].items()}
        self.directions = {source + recipe.targets[key]: key for key, source in recipe.sources.items()}     # "ab" -> what is generated.
        self.statistics = "running"
        self.multiple = max((int(getattr(m, "multiple", 1)) for m in modules.values()), default=1)
        self.smallest = max((int(getattr(m, "smallest", 1)) for m in modules.values()), default=1)

    @property
    def statistics(self) -> str:
        """What batch norms normalise with: the `running` statistics of training, or those of each `image` by itself."""
        return self._statistics

    @statistics.setter
    def statistics(self, value: str) -> None:
        if value not in STATISTICS:
            raise RequestError(f"statistics={value} is not known; accepted: {' or '.join(STATISTICS)}")
        self._statistics = value
        for module in self.modules.modules():
            if isinstance(module, BatchNorm):
                module.per_image = value == "image"

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """Any H and W: reflect-padded to what the network needs and cropped again.  NCHW in [-1, 1] -> NC'HW in [-1, 1]

        With a seed, dropout is active and drawn from it.
        """
        source, _ = self.sides(direction)
        for module in self.modules.modules():
            if isinstance(module, nn.Dropout):
                module.train(seed is not None)
        if seed is not None:
            torch.manual_seed(stable_seed(seed))
        height, width = images.shape[-2:]
        padded, top, left = reflect_to_multiple(images.to(self.device), self.multiple, self.smallest)
        out = self.recipe.generate(self.modules, {source: padded})[self.directions[direction]]
        return out[..., top:top + height, left:left + width].float()

    def sides(self, direction: str) -> tuple[str, str]:
        """The sides a direction leads from and to: "ba" -> "b", "a".  RequestError if the model has not learnt it."""
        if direction not in self.directions:
            raise RequestError(f"direction {direction} is none that this {self.header['recipe']['name']} model has learnt; "
                               f"accepted: {' or '.join(self.directions)}")
        return direction[0], direction[1]

    @overload
    def translate(self, images: Picture, *, seed: int | None = None, direction: str = "ab") -> Picture: ...
    @overload
    def translate(self, images: Sequence[Picture], *, seed: int | None = None, direction: str = "ab") -> list[Picture]: ...
    def translate(self, images: Any, *, seed: int | None = None, direction: str = "ab") -> Any:
        """Translate one image or a list: a PIL image, a uint8 array (HW or HWC) or a tensor (CHW or NCHW in [-1, 1]).

        The result is of the same type and size.  `seed` draws a dropout sample instead of the deterministic result.  `direction` "ba" goes
        from b to a, in models that learnt both.
        """
        if isinstance(images, list | tuple):
            return [self.translate(image, seed=seed, direction=direction) for image in images]
        if isinstance(images, Tensor):
            return self._tensor(images, seed, direction)
        if isinstance(images, Image.Image):
            return to_pil(self.translate(from_pil(ImageOps.exif_transpose(images)), seed=seed, direction=direction))
        if isinstance(images, np.ndarray):
            out = self(self.prepare(images, direction)[None], seed=seed, direction=direction)
            return to_array(out[0].cpu(), self.kinds[direction[1]])
        raise RequestError(f"translate takes a PIL image, a uint8 array or a tensor, not {type(images).__name__}")

    def _tensor(self, image: Tensor, seed: int | None, direction: str) -> Tensor:
        channels = self.kinds[self.sides(direction)[0]].channels
        if image.ndim not in (3, 4) or image.shape[-3] != channels or not image.is_floating_point():
            raise RequestError(f"a tensor must be CHW or NCHW with {channels} channels of floats in [-1, 1]; "
                               f"this one is {tuple(image.shape)} of {image.dtype}")
        out = self(image if image.ndim == 4 else image[None], seed=seed, direction=direction).to(image.device)
        return out if image.ndim == 4 else out[0]

    def prepare(self, array: Array, direction: str = "ab") -> Tensor:
        """A uint8 image as the network takes it.  HW or HWC -> CHW in [-1, 1]"""
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
            raise RequestError(f"an array must be uint8, HW or HWC; this one is {array.shape} of {array.dtype}")
        try:
            return to_tensor(as_channels(array, self.kinds[self.sides(direction)[0]].channels))
        except ValueError as error:
            raise RequestError(str(error)) from None


def load(path: str | Path, device: str = "auto") -> Model:
    """A model from a `.safetensors` file or a run folder.  RequestError if it is neither, or damaged."""
    path = Path(path)
    file = RunFolder(path).model if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise RequestError(f"{path} is a folder without model.safetensors; accepted: a run folder made by i2i train, or a model file")
    tensors, header = checkpoint.load(file, "model")
    try:
        recipe = from_dict(lookup("recipe", header["recipe"]["name"]), header["recipe"]["settings"])  # type: ignore[arg-type]
        info = DataInfo(**header["info"] | {"size": tuple(header["info"]["size"])})
        with torch.device("meta"):
            whole = recipe.modules(info)
        modules = nn.ModuleDict({name: whole[name] for name in recipe.averaged}).to_empty(device="cpu")
        modules.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise RequestError(f"{file} does not hold the model its header describes ({str(error).splitlines()[-1].strip()})") from None
    return Model(recipe, modules, header, best_device(device))


def reflect_to_multiple(x: Tensor, multiple: int, smallest: int = 1) -> tuple[Tensor, int, int]:
    """Enlarge to a multiple, and to `smallest` at least, by reflecting, as often as needed, half on each side.  NCHW -> NCH'W', top, left"""
    height, width = x.shape[-2:]
    rows, top = _reflected(height, multiple, smallest, x.device)
    columns, left = _reflected(width, multiple, smallest, x.device)
    if len(rows) != height:
        x = x[..., rows, :]
    if len(columns) != width:
        x = x[..., columns]
    return x, top, left


def _reflected(size: int, multiple: int, smallest: int, device: torch.device) -> tuple[Tensor, int]:
    extra = max(-(-size // multiple) * multiple, -(-smallest // multiple) * multiple) - size
    before = extra // 2
    at = torch.arange(-before, size + extra - before, device=device)
    if size == 1:
        return torch.zeros_like(at), before
    period = 2 * (size - 1)
    at = at.remainder(period)
    return torch.minimum(at, period - at), before
