"""A set of images to evaluate: what its files are, and each image in 8-bit levels."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from i2i.data.file_list import FileList
from i2i.data.layouts import pair_all
from i2i.data.sharding import map_in_threads
from i2i.data.sources import Source, Unreadable, image_names, load_image, open_source
from i2i.data.sources.base import error_reason
from i2i.errors import JobError
from i2i.images.convert import to_8bit, to_rgb
from i2i.images.decode import Header, read_header
from i2i.images.format import Array, DecodedImage

T = TypeVar("T")
READERS = 4         # Threads that decode a set.
LOSSY = ("JPEG", "WEBP", "MPO")     # Headers do not always say that WebP is lossless.


@dataclass(frozen=True)
class ImageSetFacts:
    """How many files a set has, by their headers, and a hash of their content."""

    n: int
    content: str                    # sha256 over the sha256 of each file, in the order of names.
    formats: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)     # WIDTHxHEIGHT, the eight commonest.
    gray: int = 0
    alpha: int = 0
    colors: dict[str, int] = field(default_factory=dict)    # What becomes of those that are not sRGB.

    @classmethod
    def of(cls, files: Iterable[tuple[bytes, Header]]) -> "ImageSetFacts":
        """From the digests and headers of files, in the order of names."""
        known = list(files)
        headers = [header for _, header in known]
        formats = Counter(header.format for header in headers)
        sizes = Counter(f"{header.width}x{header.height}" for header in headers)
        return cls(len(known), hashlib.sha256(b"".join(digest for digest, _ in known)).hexdigest(),
                   dict(sorted(formats.items())), dict(sizes.most_common(8)),
                   sum(header.gray for header in headers), sum(header.alpha for header in headers),
                   dict(Counter(header.colors for header in headers if header.colors)))

    @property
    def lossy(self) -> set[str]:
        """The lossy formats among them."""
        return set(self.formats) & set(LOSSY)


@dataclass(frozen=True)
class ImageSet:
    """Images of one source, in the order of their names."""

    source: Source
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Array:
        """One image as an (H, W, 3) uint8 array, as people and feature networks see it.

        Gray is repeated, alpha is composited over white, 16 bits become 8; of four or more channels the first
        three remain.  JobError if it cannot be read.
        """
        return to_rgb(to_8bit(self._load(index)))

    def levels(self, index: int) -> Array:
        """As `read`, but (H, W, C) with all channels where they are more than three."""
        array = to_8bit(self._load(index))
        return array if array.ndim == 3 and array.shape[2] > 3 else to_rgb(array)

    def _load(self, index: int) -> DecodedImage:
        try:
            image = load_image(self.source, self.names[index])
        except Unreadable as error:
            raise JobError(str(error)) from None
        if image.array.dtype.kind == "f":
            raise JobError(f"{image.name} is {image.array.dtype}, which has no fixed range for 8-bit levels; "
                           "accepted: 8 or 16 bits, or i2i evaluate MODEL, which knows the range")
        return image

    def take(self, indices: Iterable[int]) -> "ImageSet":
        """Some of the images."""
        return ImageSet(self.source, [self.names[int(i)] for i in indices])

    def measure(self, call: Callable[[Array], T], progress: Callable[[int], None]) -> Iterator[T]:
        """What a call finds in each image, several of which are decoded at a time."""
        results = map_in_threads(lambda index: call(self.read(index)), range(len(self)), threads=READERS)
        for done, found in enumerate(results, 1):
            yield found
            progress(done)

    def headers(self, indices: Iterable[int]) -> Iterator[tuple[bytes, Header]]:
        """The sha256 of some files and their headers.  JobError names one that is no image."""
        for index in indices:
            name = self.names[index]
            try:
                data = self.source.read(name)
                yield hashlib.sha256(data).digest(), read_header(data)
            except Unreadable as error:
                raise JobError(f"{self.source.path_of(name)}: {error.reason}") from None
            except Exception as error:      # Image.open raises OSError, SyntaxError, ValueError ...
                raise JobError(f"{self.source.path_of(name)}: {error_reason(error)}") from None


def open_image_set(where: str | Path, option: str, *, max_pixels: int | None = None) -> ImageSet:
    """All images of a source.  RequestError names the command-line option if there are none."""
    source = open_source(where, max_pixels=max_pixels)
    return ImageSet(source, image_names(source, f"{option} {where}"))


def pixel_digest(image: Array) -> str:
    """The sha256 of an (H, W, C) uint8 image's pixels, whatever the file format."""
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()


def pair_sets(fake: ImageSet, real: ImageSet) -> list[tuple[int, int]]:
    """Indices of images with the same name but for the extension.  RequestError if some have no partner."""
    a, b = pair_all([FileList.of(fake.names), FileList.of(real.names)], [fake.source.root, real.source.root])
    return list(zip(a.tolist(), b.tolist(), strict=True))
