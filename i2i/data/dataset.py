"""The base of all kinds of datasets: samples as a function of their position."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from i2i.data.cache import Cache, DiskCache, MemoryCache, array_bytes
from i2i.data.pipeline import Pipeline
from i2i.data.sampler import Order
from i2i.data.sources import Source, Unreadable, convert_or_unreadable
from i2i.data.sources.base import error_reason
from i2i.data.transforms import JointCropFlip, Resize, Size
from i2i.errors import RequestError
from i2i.images.convert import to_tensors
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.seeding import stable_seed

MEMORY_SHARE = {"auto": 0.25, "memory": 0.5}    # Of the free memory, for the cache.
SIZE_MARGIN = 1.5               # Over the estimated size of the cache, for images of other proportions.
PIPELINE_STREAM = 100           # Of seeds, apart from those of crops and orders.
UNKNOWN_MEMORY = 1 << 60        # Bytes of free memory from which on it is unknown.
Formats = tuple[ImageFormat, ImageFormat]
Sample = dict[str, Any]         # Arrays, and an integer for a class.
OnRead = Callable[[str], None]
OnSkip = Callable[[Unreadable], None]


@dataclass(frozen=True)
class Stream:
    """Images of a sample that share an index: both of a pair ("ab"), or one of a side ("a" or "b")."""

    keys: str
    size: int
    order: Order
    offset: int         # Number of images in the streams before it.


@dataclass(frozen=True)
class Dataset(ABC):
    """One split of a dataset.

    `dataset[index]` gives images as stored; `dataset.sample(position)` gives the arrays of one sample, as a
    function of the fields below and the position alone.

    Args:
        source: where the files are.
        split: "train", "val" or "test".
        formats: formats of the images "a" and "b" of a sample.
        transform: how images are resized and augmented.
        shuffle: show each image once in every epoch, in a new order; False: the sample at i is number i.
        seed: of order and augmentation.
        on_error: "stop" raises at an image that cannot be read, "skip" takes the next one that can.
        cache: where resized images are kept.
        pipelines: augment resized images, before `transform` crops them.
    """

    crop_flip: ClassVar[type[JointCropFlip]] = JointCropFlip    # The augmentation for training.
    load_scale: ClassVar[float] = 286 / 256     # Of the crop, to load at: Isola et al. 2017, section 6.2.
    square_crop: ClassVar[bool] = False         # By default, of a size that generators from noise can make.
    source: Source
    split: str
    _: KW_ONLY
    formats: Formats = field(default_factory=lambda: (ImageFormat(), ImageFormat()))
    transform: Resize = field(default_factory=Resize)
    shuffle: bool = False
    seed: int = 0
    on_error: str = "stop"
    cache: Cache = field(default_factory=Cache)
    pipelines: tuple[Pipeline, ...] = ()

    @property
    @abstractmethod
    def description(self) -> str:
        """How many images there are, in words."""

    @abstractmethod
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when files are added, removed, renamed or relabeled."""

    @property
    @abstractmethod
    def stream_sizes(self) -> dict[str, int]:
        """The sizes of the streams of a sample, by their keys."""

    @abstractmethod
    def files(self, keys: str, index: int) -> tuple[str, ...]:
        """The files that hold the images of a stream."""

    @abstractmethod
    def decode(self, keys: str, index: int) -> Sequence[DecodedImage]:
        """The images of a stream as stored, one for each key.  Raises Unreadable."""

    def label(self, index: int) -> dict[str, int]:
        """The class of an image, {"c": class}, where there are classes."""
        return {}

    def __len__(self) -> int:
        """Samples in an epoch."""
        return max(self.stream_sizes.values())

    def __getitem__(self, index: int) -> tuple[DecodedImage, Any]:
        """An image and its partner or class, as stored.  Raises Unreadable."""
        image, *others = (image for keys in self.stream_sizes for image in self.decode(keys, index))
        return image, others[0] if others else self.label(index).get("c")

    def name(self, index: int) -> str:
        """The file that sample `index` takes its name from."""
        return self.files(next(iter(self.stream_sizes)), index)[0]

    def for_training(self, crop: Size, load: Size, formats: Formats, *, flip: bool = True, seed: int = 0,
                     on_error: str = "stop", pipelines: tuple[Pipeline, ...] = ()) -> Self:
        """This dataset shuffled, resized to `load`, augmented, cropped to `crop` and flipped at random."""
        return replace(self, formats=formats, transform=self.crop_flip(load, crop=crop, flip=flip),
                       shuffle=True, seed=seed, on_error=on_error, pipelines=pipelines)

    def for_evaluation(self, formats: Formats, size: Size | None = None) -> Self:
        """This dataset in order and without augmentation, resized to `size` or as large as stored."""
        return replace(self, formats=formats, transform=Resize(size), shuffle=False, pipelines=())

    def with_cache(self, kind: str, image_size: Size, memory: int, folder: Path | None) -> Self:
        """This dataset with the cache of the setting data.cache.

        Args:
            kind: "memory" for as many images as half of the free memory holds; "auto" for all images in
                memory, or none if they need more than a quarter of it: training and the file system's cache
                need the rest; "disk" or "off".
            image_size: height and width of the stored images.
            memory: bytes that are free for this process.
            folder: of the disk cache; None turns it off.
        """
        cache, nbytes = Cache(), self.decoded_bytes(image_size)
        limit = MEMORY_SHARE.get(kind, 0.0) * memory if memory < UNKNOWN_MEMORY else 0.0
        if kind == "disk" and folder:
            cache = DiskCache(folder, self.source, repr((
                type(self).__name__, getattr(self, "direction", ""), getattr(self, "strips", False),
                type(self.transform).__name__, self.transform.load, self.formats)))
        elif limit and (kind == "memory" or nbytes <= limit):
            images = sum(stream.size for stream in self.streams)
            try:
                cache = MemoryCache(images, int(min(limit, SIZE_MARGIN * nbytes)))
            except OSError as error:        # Such as a limit on the size of files, which shared memory is.
                if kind == "memory":
                    raise RequestError(f"data.cache=memory is not possible here: {error.strerror}; "
                                       "accepted: auto, disk or off") from error
        return replace(self, cache=cache)

    def decoded_bytes(self, image_size: Size) -> int:
        """Memory that all images of this stored size take when they are resized."""
        height, width = self.transform.loaded_size(image_size)
        return sum(stream.size * array_bytes(height, width, self.format(key).channels, self.format(key).dtype)
                   for stream in self.streams for key in stream.keys)

    def format(self, key: str) -> ImageFormat:
        """The format of the images "a" or "b"."""
        return self.formats["ab".index(key)]

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """What a sample is made of."""
        streams: list[Stream] = []
        for number, (keys, size) in enumerate(self.stream_sizes.items(), 1):
            order = Order(size, self.seed, *[number] * (len(self.stream_sizes) > 1), shuffle=self.shuffle)
            streams.append(Stream(keys, size, order, offset=sum(stream.size for stream in streams)))
        return tuple(streams)

    def sample(self, position: int, *, on_read: OnRead | None = None,
               on_skip: OnSkip | None = None) -> Sample:
        """The images "a" and "b" at a position, HW or HWC, and the class "c" where there are classes.

        Args:
            position: any integer from 0; training counts on through its epochs.
            on_read: called with the name of each file before it is read.
            on_skip: called for each image that on_error="skip" skips.

        Raises:
            Unreadable: if an image cannot be read, or with on_error="skip" if none can.
            JobError: if a pipeline fails.
        """
        images: dict[str, Array] = {}
        label: dict[str, int] = {}
        for stream in self.streams:
            index, arrays = self._read(stream, stream.order(position), on_read, on_skip)
            images |= zip(stream.keys, arrays, strict=True)
            label |= self.label(index)
        for number, pipeline in enumerate(self.pipelines):
            images |= pipeline(images, stable_seed(self.seed, position, PIPELINE_STREAM + number))
        augmented = self.transform.augment(list(images.values()), stable_seed(self.seed, position))
        return dict(zip(images, augmented, strict=True)) | label

    def _read(self, stream: Stream, first: int, on_read: OnRead | None,
              on_skip: OnSkip | None) -> tuple[int, Sequence[Array]]:
        """The index and the resized images of the first that can be read, starting at `first`."""
        problem: Unreadable | None = None
        for attempt in range(stream.size if self.on_error == "skip" else 1):
            if problem and on_skip:
                on_skip(problem)
            index = (first + attempt) % stream.size
            files = self.files(stream.keys, index)
            name = self.source.path_of(" or its partner ".join(files))
            if on_read:
                on_read(name)
            try:
                return index, self.cache(stream.offset + index, stream.keys, files,
                                         partial(self._decode, stream.keys, index))
            except Exception as error:      # Nothing that reading raises may end a loader process.
                problem = (error if isinstance(error, Unreadable)
                           else Unreadable(name, error_reason(error) if isinstance(error, MemoryError)
                                           else f"{type(error).__name__}: {error}"))
        assert problem      # No stream is empty.
        raise problem

    def _decode(self, keys: str, index: int) -> list[Array]:
        return [self.transform.resize(convert_or_unreadable(image, self.format(key)), self.format(key).resize)
                for key, image in zip(keys, self.decode(keys, index), strict=True)]

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Samples as one batch: images as (N, C, H, W) in [-1, 1], classes as (N,)."""
        columns = {key: [sample[key] for sample in samples] for key in samples[0]}
        return {key: torch.tensor(values) if key == "c" else to_tensors(values, self.format(key))
                for key, values in columns.items()}

    def tensors(self, position: int) -> dict[str, Tensor]:
        """One sample: images as (C, H, W) in [-1, 1].  Raises Unreadable."""
        return {key: values[0] for key, values in self.collate([self.sample(position)]).items()}

    def batch(self, positions: Iterable[int],
              on_skip: OnSkip | None = None) -> tuple[list[int], dict[str, Tensor]]:
        """Read the samples at these positions as one batch.

        Returns:
            The positions that could be read, and their samples; `on_skip` is called for the others.
        """
        readable, samples = [], []
        for position in positions:
            try:
                samples.append(self.sample(position))
                readable.append(position)
            except Unreadable as error:
                if on_skip:
                    on_skip(error)
        return readable, self.collate(samples) if samples else {}


def fingerprint(split: str, *columns: Iterable[str]) -> str:
    """16 hexadecimal digits that name these columns of text in this order."""
    digest = hashlib.sha256(split.encode())
    lines = (f"\n{text}" for text in chain(columns[0], *(chain([""], column) for column in columns[1:])))
    while part := "".join(islice(lines, 4096)):
        digest.update(part.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
