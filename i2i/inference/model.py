"""A trained model from one file: load(path).translate(images)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from i2i import recipes  # noqa: F401 - registers the recipes.
from i2i.config import from_dict, validate
from i2i.errors import RequestError, require
from i2i.images.formats import (
    DTYPES,
    Array,
    DecodedImage,
    ImageFormat,
    apply_clahe_to_tensors,
    convert_to,
    from_pil,
    pil_supports,
    to_array,
    to_pil,
    to_tensor,
)
from i2i.inference.device import best_device
from i2i.nets.norms import BatchNorm
from i2i.nets.padding import reflect_index
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.meta import build_on_meta
from i2i.registry import lookup, suggest
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.seeding import noise_for, stable_seed

ImageT = TypeVar("ImageT", Image.Image, Array, Tensor)
STATISTICS = ("running", "image")
LARGEST_SIDE = 2**15        # Pixels, of the images that a model was trained on.
Labels = int | str | Sequence[int | str] | Tensor | None


def model_header(recipe_name: str, settings: Mapping[str, Any], info: DataInfo,
                 kinds: tuple[ImageFormat, ImageFormat], **more: Any) -> dict[str, Any]:
    """What a model file must say of itself so that the file alone is enough."""
    return {"recipe": {"name": recipe_name, "settings": dict(settings)}, "info": vars(info).copy(),
            "kinds": {"a": vars(kinds[0]).copy(), "b": vars(kinds[1]).copy()}, **more}


class Translator(ABC):
    """What makes images of images: one model, or several in a chain."""

    kinds: Mapping[str, ImageFormat]       # What the images of each side look like outside.
    multiple: int                   # Sides of images it takes without enlarging them.

    @abstractmethod
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """NCHW in [-1, 1] -> NC'HW in [-1, 1]"""

    @abstractmethod
    def sides(self, direction: str) -> tuple[str, str]:
        """The sides a direction leads from and to.  RequestError if it is none of those learned."""

    @overload
    def translate(self, images: ImageT, *, seed: int | None = None, direction: str = "ab") -> ImageT: ...
    @overload
    def translate(self, images: Sequence[ImageT], *, seed: int | None = None,
                  direction: str = "ab") -> list[ImageT]: ...
    def translate(self, images: Any, *, seed: int | None = None, direction: str = "ab") -> Any:
        """Translate one image or a list: a PIL image, an array (HW or HWC of uint8, uint16 or float32) or a
        tensor (CHW or NCHW in [-1, 1]).

        The result is of the same type and size, and of the kind (dtype, channels, range) of the target
        images.  `seed` draws a dropout sample instead of the deterministic result.  `direction` "ba" goes
        from b to a, in models that learned both.
        """
        if isinstance(images, list | tuple):
            return [self.translate(image, seed=seed, direction=direction) for image in images]
        if isinstance(images, Tensor):
            return self._tensor(images, seed, direction)
        if isinstance(images, Image.Image):
            kind = self.kinds[self.sides(direction)[1]]
            if not pil_supports(kind):
                raise RequestError(f"the results have {kind}, which no PIL image holds; accepted: arrays and "
                                   "tensors")
            return to_pil(self._array(_from_pil(images), seed, direction))
        if isinstance(images, np.ndarray):
            return self._array(_from_array(images), seed, direction)
        raise RequestError(f"translate takes a PIL image, an array or a tensor, not {type(images).__name__}")

    def _array(self, picture: DecodedImage, seed: int | None, direction: str) -> Array:
        out = self(self.prepare(picture, direction)[None], seed=seed, direction=direction)
        return to_array(out[0].cpu(), self.kinds[direction[1]])

    def _tensor(self, image: Tensor, seed: int | None, direction: str) -> Tensor:
        channels = self.kinds[self.sides(direction)[0]].channels
        if image.ndim not in (3, 4) or image.shape[-3] != channels or not image.is_floating_point():
            raise RequestError(f"a tensor must be CHW or NCHW with {channels} channels of floats in [-1, 1]; "
                               f"this one is {tuple(image.shape)} of {image.dtype}")
        given = apply_clahe_to_tensors(image if image.ndim == 4 else image[None],
                                       self.kinds[self.sides(direction)[0]])
        out = self(given, seed=seed, direction=direction).to(image.device)
        return out if image.ndim == 4 else out[0]

    def prepare(self, picture: DecodedImage, direction: str = "ab") -> Tensor:
        """A picture as the network takes it.  -> CHW in [-1, 1]; RequestError if it cannot be brought to the
        source side's kind"""
        kind = self.kinds[self.sides(direction)[0]]
        try:
            return to_tensor(convert_to(picture, kind), kind)
        except ValueError as error:
            raise RequestError(str(error)) from None


class Model(Translator):
    """A trained translator.  Deterministic unless a seed for the dropout samples is given."""

    def __init__(self, recipe: Recipe, modules: nn.ModuleDict, header: Mapping[str, Any],
                 device: torch.device) -> None:
        self.recipe, self.header, self.device = recipe, header, device
        self.modules = modules.to(device).eval().requires_grad_(False)
        self.kinds = {side: ImageFormat.of(kind) for side, kind in header["kinds"].items()}
        # "ab" -> what is generated.
        self.directions = {source + recipe.targets[key]: key for key, source in recipe.sources.items()}
        self.statistics = "running"
        self.multiple = max((int(getattr(m, "multiple", 1)) for m in modules.values()), default=1)
        self.smallest = max((int(getattr(m, "smallest", 1)) for m in modules.values()), default=1)

    @property
    def statistics(self) -> str:
        """What batch norms normalize with: the `running` statistics of training, or those of each `image` by
        itself."""
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
        """Any H and W: reflect-padded to what the network needs and cropped again.  NCHW in [-1, 1] -> NC'HW
        in [-1, 1]

        With a seed, dropout is active and drawn from it.
        """
        source, _ = self.sides(direction)
        for module in self.modules.modules():
            if isinstance(module, nn.Dropout):
                module.train(seed is not None)
        if seed is not None:
            torch.manual_seed(stable_seed(seed))
        height, width = images.shape[-2:]
        padded, top, left = pad_to_multiple(images.to(self.device), self.multiple, self.smallest)
        out = self.recipe.generate(self.modules, {source: padded})[self.directions[direction]]
        return out[..., top:top + height, left:left + width].float()

    def sides(self, direction: str) -> tuple[str, str]:
        """The sides a direction leads from and to: "ba" -> "b", "a".  RequestError if the model has not
        learned it."""
        if not self.directions:
            raise RequestError(f"this {self.header['recipe']['name']} model makes images from noise; use "
                               "generate")
        if direction not in self.directions:
            raise RequestError(f"direction {direction} is none that this {self.header['recipe']['name']} "
                               "model has learned; "
                               f"accepted: {' or '.join(self.directions)}")
        return direction[0], direction[1]

    # ------------------------------------------------------------------------------------------ from noise

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that images can be asked for; none in models without labels."""
        return tuple(self.header.get("classes", ()))

    def generate(self, n: int, *, labels: Labels = None, seed: int = 0, truncation: float = 1.0,
                 batch: int = 64) -> Tensor:
        """The first `n` images of a seed.  -> NCHW in [-1, 1], on the CPU

        Image i depends on (seed, i), its label and the truncation alone, but for the rounding that goes with
        the size of a batch.  `labels`: a class, by number or name, for each image, or one for all; by default
        the classes take turns.  `truncation` < 1 draws styles to their mean (Karras et al. 2019, section B);
        others refuse it.
        """
        require(n >= 1, "n", n, "1 or more")
        require(batch >= 1, "batch", batch, "1 or more")
        numbers, parts = self.labels(n, labels), []
        for i in range(0, n, batch):
            some = None if numbers is None else numbers[i:i + batch]
            parts.append(self.render(range(i, min(i + batch, n)), some, seed=seed, truncation=truncation))
        return torch.cat(parts)

    @torch.inference_mode()
    def render(self, places: Sequence[int], labels: Tensor | None, *, seed: int,
               truncation: float = 1.0) -> Tensor:
        """Images number `places` of a seed as one batch.  labels N of class numbers, in models that know
        classes -> NCHW on the CPU"""
        if self.recipe.sources:
            raise RequestError(f"this {self.header['recipe']['name']} model makes images from images; use "
                               "translate")
        count = cast(int, self.modules["Z"].noise_dim)
        inputs = {"eps": torch.stack([noise_for(seed, place, count) for place in places]).to(self.device)}
        if labels is not None:
            inputs["c"] = labels.to(self.device)
        self.truncate(truncation)
        return next(iter(self.recipe.generate(self.modules, inputs).values())).float().cpu()

    def truncate(self, truncation: float) -> None:
        """How far styles may be from their mean: 1 as trained, 0 the mean itself.  RequestError for networks
        without styles."""
        G = cast(Any, self.modules["G"])
        require(hasattr(G, "truncation") or truncation == 1, "truncation", truncation,
                "1, in a network without a style space")
        require(-2 <= truncation <= 2, "truncation", truncation, "-2 to 2")
        if hasattr(G, "truncation"):
            G.truncation = truncation

    def labels(self, n: int, labels: Labels) -> Tensor | None:
        """Class numbers for n images, from numbers or names; in turn if nothing is said; None for a model
        without classes."""
        classes = self.classes
        if not classes and labels is None:
            return None
        if labels is None:
            return torch.arange(n) % len(classes)
        given = labels.tolist() if isinstance(labels, Tensor) else labels
        numbers = [self.class_number(label) for label in ([given] if isinstance(given, int | str) else given)]
        if len(numbers) not in (1, n):
            raise RequestError(f"{len(numbers)} labels for {n} images; accepted: one for each, or one for all")
        return torch.tensor(numbers * n if len(numbers) == 1 else numbers)

    def class_number(self, label: int | str) -> int:
        """The number of a class by its name or number.  RequestError for others, and in models without
        labels."""
        if not self.classes:
            raise RequestError("this model was trained without labels; it makes no images of a class")
        if isinstance(label, str):
            if label not in self.classes:
                raise RequestError(f"no class is called {label!r}; {suggest(label, self.classes)}")
            return self.classes.index(label)
        require(hasattr(label, "__index__") and 0 <= label < len(self.classes), "label", label,
                f"0 to {len(self.classes) - 1}, or a name")
        return int(label)


def _from_array(array: Array) -> DecodedImage:
    if array.dtype.name not in DTYPES or array.ndim not in (2, 3) or 0 in array.shape:
        raise RequestError(f"an array must be HW or HWC of {', '.join(DTYPES)}; this one is {array.shape} of "
                           f"{array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError("an array must hold numbers; this one has NaN or infinite values")
    return DecodedImage(array.astype(array.dtype.newbyteorder("="), copy=False))


def _from_pil(image: Image.Image) -> DecodedImage:
    try:
        return from_pil(ImageOps.exif_transpose(image))
    except ValueError as error:
        raise RequestError(str(error)) from None


def model_file(path: str | Path) -> Path:
    """The file that holds a model: this one, or that of a run folder.  RequestError if the folder is none."""
    path = Path(path)
    file = RunFolder(path).model if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise RequestError(f"{path} is a folder without model.safetensors; accepted: a run folder made by "
                           "i2i train, or a model file")
    return file


def load(path: str | Path, device: str = "auto") -> Model:
    """A model from a `.safetensors` file or a run folder.  RequestError if it is neither, or damaged."""
    file = model_file(path)
    header = checkpoint.read_header(file, "model")
    try:
        recipe, modules = networks_from_header(header)
        shapes, there = {name: (tuple(tensor.shape), tensor.dtype) for name,
                         tensor in modules.state_dict().items()}, checkpoint.shapes(file)
        for name in sorted(shapes.keys() | there.keys()):       # Before any memory is taken.
            if shapes.get(name) != there.get(name):
                raise ValueError(f"{name[:80]} is {_describe(there.get(name))}, and "
                                 f"{_describe(shapes.get(name))} by the header")
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, IndexError, ArithmeticError,
            RecursionError) as error:
        reason = f"no {error}" if isinstance(error,
                                             KeyError) else str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise RequestError(f"{file} does not hold the model its header describes ({reason[:300]})") from None
    tensors, header = checkpoint.load(file, "model")
    modules.to_empty(device="cpu").load_state_dict(tensors)
    return Model(recipe, modules, header, best_device(device))


def networks_from_header(header: Mapping[str, Any]) -> tuple[Recipe, nn.ModuleDict]:
    """The recipe and the generating modules that a header describes, as shapes without memory.  ValueError
    and its like for what no header says."""
    recipe: Any = from_dict(cast(Any, lookup("recipe", header["recipe"]["name"])), header["recipe"]["settings"])
    info = from_dict(DataInfo, header["info"])
    require(all(1 <= side <= LARGEST_SIDE for side in info.size), "info.size", info.size,
            f"1 to {LARGEST_SIDE}")
    require(info.a_channels >= 1 and info.b_channels >= 1, "info", "no channels", "1 or more")
    kinds, classes = {side: ImageFormat.of(kind) for side,
                      kind in header["kinds"].items()}, validate("classes", header.get("classes", []),
                                                                 tuple[str, ...])
    require(kinds.keys() == {"a", "b"}, "kinds", list(kinds), "a and b")
    require((kinds["a"].channels, kinds["b"].channels) == (info.a_channels, info.b_channels), "kinds",
            "their channels", "those of info")
    require(not info.num_classes or len(classes) == info.num_classes, "classes", len(classes),
            f"{info.num_classes} names")
    require(isinstance(header.get("data", ""), str) and "\0" not in header.get("data", ""), "data", "that",
            "a path")
    require(header.get("direction", "ab") in ("ab", "ba"), "direction", "that", "ab or ba")
    whole = build_on_meta(recipe, info)
    return recipe, nn.ModuleDict({name: whole[name] for name in recipe.ema_modules})


def _describe(shape: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "absent" if shape is None else f"{'x'.join(map(str, shape[0])) or 'one number'} of {str(shape[1]).removeprefix('torch.')}"


def pad_to_multiple(x: Tensor, multiple: int, smallest: int = 1) -> tuple[Tensor, int, int]:
    """Enlarge to a multiple, and to `smallest` at least, by reflecting, as often as needed, half on each
    side.  NCHW -> NCH'W', top, left"""
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
    return reflect_index(torch.arange(-before, size + extra - before, device=device), size), before
