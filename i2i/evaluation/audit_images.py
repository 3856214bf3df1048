"""The images of an audit: sources, their translations and, where there are any, images of the target side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from i2i import registry
from i2i.data.paired import MIN_STRIP_ASPECT, PairedDataset, TwoSidedDataset
from i2i.data.sampler import evenly_spaced
from i2i.data.sources import Unreadable, load_image, open_source
from i2i.errors import JobError, RequestError
from i2i.images.convert import ConversionLog, convert_to, tensor_to_rgb, to_levels, to_tensor
from i2i.images.decode import read_header
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.inference.model import Model

MIN_IMAGES = 8
SAMPLED = 16                # Files that decide whether images are strips.
MAX_SIDE = 512              # Of larger images the middle is audited.
HALF_RANGE = 127.5          # Levels of 255 in a unit of [-1, 1].
Read = Callable[[int], DecodedImage]


@dataclass(frozen=True)
class Side:
    """Images of one side of a data set, decoded when they are read."""

    format: ImageFormat
    names: Sequence[str]
    read: Read
    converted: ConversionLog = field(default_factory=ConversionLog)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, most: int) -> "Side":
        """At most so many, evenly spaced."""
        chosen = list(evenly_spaced(len(self), most))
        return replace(self, names=[self.names[i] for i in chosen], read=lambda i: self.read(chosen[i]))

    def tensor(self, index: int) -> Tensor:
        """An image as the network sees it, (C, H, W) in [-1, 1].  JobError if it cannot be read."""
        try:
            image = self.read(index)
            self.converted.add(self.names[index], image, self.format)
            return to_tensor(convert_to(image, self.format), self.format)
        except Unreadable as error:
            raise JobError(str(error)) from None
        except ValueError as error:
            raise JobError(f"{self.names[index]} {error}") from None

    def rgb(self, index: int) -> Array:
        """An image as people see it, (H, W, 3) uint8."""
        return tensor_to_rgb(self.tensor(index), self.format)


@dataclass(frozen=True)
class Sides:
    """What an audit is made of: sources, images of the target side if there are any, and what they are."""

    sources: Side
    targets: Side | None
    paired: bool            # Target i is what source i should become.
    split: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audited:
    """A model and what it made of some sources: tensors (C, H, W) in [-1, 1], not rounded."""

    model: Model
    direction: str
    sides: Sides
    sources: list[Tensor]
    translations: list[Tensor]
    targets: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def written(self) -> list[Tensor]:
        """The translations as 8-bit files hold them."""
        return [round_to_levels(image) for image in self.translations]

    def source_rgb(self, image: Tensor) -> Array:
        """An image of the source side as people see it, (H, W, 3) uint8."""
        return tensor_to_rgb(image, self.sides.sources.format)

    def target_rgb(self, image: Tensor) -> Array:
        """An image of the target side as people see it, (H, W, 3) uint8."""
        return tensor_to_rgb(image, self.model.formats[self.direction[1]])


def open_sides(model: Model, where: str, *, split: str | None = None, direction: str = "ab",
               own: bool = False, training: bool = False, max_pixels: int | None = None) -> Sides:
    """The images of both sides of a data set, or of a folder of sources alone.

    Args:
        split: which split; by default test, else val, else train, which is noted.
        direction: which way the model translates.
        own: whether these are the data that the model was trained on, whose layout is known.
        training: take the training split by default.

    Raises:
        RequestError: if the model does not translate that way, or there is no such split.
    """
    keys = model.sides(direction)
    source = open_source(where, max_pixels=max_pixels)
    splits: dict[str, Any] = registry.build("dataset", registry.Spec(model.recipe.dataset), source,
                                            model.header.get("direction", "ab"))
    if split is not None and split not in splits:
        raise RequestError(f"{where} has no {split} split; {registry.suggest(split, splits)}")
    order = ("train", "val", "test") if training else ("test", "val", "train")
    name = split or next(name for name in order if name in splits)
    dataset: TwoSidedDataset = splits[name]
    divided = bool(dataset.manifest) or dataset.a[0].startswith(f"{name}/")
    notes = [] if split or name != "train" else [
        f"{where} has no test or val split: the model may have been trained on what is audited"]
    if dataset.strips and not own:
        wide = _look_like_strips(dataset)
        if not wide or not (split or divided or training):
            notes = notes if divided else [
                f"{where}: its images are taken for sources; --split train takes them for A|B strips"] * wide
            side = _whole_files(dataset if divided else replace(dataset, source=source, a=source.names()),
                                model.formats[keys[0]])
            return Sides(side, None, False, name if divided else "all images", tuple(notes))
        if not (split or dataset.manifest):
            notes.append(f"{where}: its images are taken for A|B strips; --data "
                         f"{dataset.source.path_of(name)} takes them for sources")
    first, second = (_side(dataset, key, model.formats[key]) for key in keys)
    return Sides(first, second, isinstance(dataset, PairedDataset), name, tuple(notes))


def check_translates(model: Model, name: str) -> None:
    """RequestError unless a model makes images from images."""
    if not model.recipe.sources:
        raise RequestError(f"{name} makes images from noise, and an audit is of models that translate "
                           "images; accepted: i2i leaks or i2i evaluate, for what it makes")


def _look_like_strips(dataset: TwoSidedDataset) -> bool:
    """Whether no file of a sample is narrower than two squares; those that cannot be read do not count."""
    for i in evenly_spaced(len(dataset.a), SAMPLED):
        try:
            header = read_header(dataset.source.read(dataset.a[i]))
        except Exception:       # Image.open raises OSError, SyntaxError, ValueError; named when decoded.
            continue
        if header.width < MIN_STRIP_ASPECT * header.height:
            return False
    return True


def _whole_files(dataset: TwoSidedDataset, image_format: ImageFormat) -> Side:
    """The files of a data set, not cut into halves."""
    return Side(image_format, dataset.a, lambda i: load_image(dataset.source, dataset.a[i]))


def _side(dataset: TwoSidedDataset, key: str, image_format: ImageFormat) -> Side:
    keys = next(keys for keys in dataset.stream_sizes if key in keys)
    files = dataset.a if dataset.direction.index(key) == 0 else dataset.b
    return Side(image_format, files, lambda i: dataset.decode(keys, i)[keys.index(key)])


def translate_sides(model: Model, sides: Sides, n: int, direction: str,
                    progress: Callable[[int, int], None]) -> Audited:
    """Translate at most n sources.  RequestError if there are too few, or one does not fit in memory."""
    count = min(n, len(sides.sources))
    if count < MIN_IMAGES:
        raise RequestError(f"{count} images are too few for a statement; {MIN_IMAGES} are needed, and 64 "
                           "make intervals narrow enough for most questions")
    sources = sides.sources.take(n)
    targets = sides.targets.take(n) if sides.targets else None
    chosen = replace(sides, sources=sources, targets=targets)
    tensors, results = [], []
    for i in range(count):
        tensors.append(middle(sources.tensor(i)))
        model.check_memory(tensors[-1].shape[1], tensors[-1].shape[2], direction)
        results.append(model(tensors[-1][None], direction=direction)[0].cpu())
        progress(i + 1, count)
    of_targets = [middle(targets.tensor(i)) for i in range(len(targets))] if targets else []
    return Audited(model, direction, chosen, tensors, results, of_targets)


def middle(image: Tensor, height: int = MAX_SIDE, width: int = MAX_SIDE) -> Tensor:
    """The middle of an image, at most so large."""
    top, left = max(0, image.shape[-2] - height) // 2, max(0, image.shape[-1] - width) // 2
    return image[..., top:top + height, left:left + width]


def round_to_levels(image: Tensor) -> Tensor:
    """Round to the 256 levels of [-1, 1], as 8-bit files do."""
    return to_levels(image) / HALF_RANGE - 1
