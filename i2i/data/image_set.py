"""A set of pictures to be judged: what its files are, and each of them in 8-bit levels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from i2i.data.sources import EXTENSIONS, Source, Unreadable, load_image, open_source
from i2i.errors import JobError, RequestError
from i2i.images.decode import Header, header
from i2i.images.formats import Array, DecodedImage, to_8bit, to_rgb

LOSSY = ("JPEG", "WEBP", "MPO")     # WebP may be lossless, which its header does not always say.


@dataclass(frozen=True)
class ImageSetFacts:
    """What the headers of a set's files say, and a hash of all their bytes."""

    n: int
    # sha256 over the sha256 of each file, in the order of names.
    content: str
    formats: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    gray: int = 0
    alpha: int = 0

    @classmethod
    def of(cls, files: Iterable[tuple[bytes, Header]]) -> ImageSetFacts:
        """What the digests and headers of files, in the order of names, come to."""
        digest, n = hashlib.sha256(), 0
        formats, sizes, modes = Counter[str](), Counter[str](), Counter[str]()
        for each, told in files:
            digest.update(each)
            n += 1
            formats[told.format] += 1
            sizes[f"{told.width}x{told.height}"] += 1
            modes["alpha"] += told.alpha
            modes["gray"] += told.gray
        return cls(n, digest.hexdigest(), dict(sorted(formats.items())), dict(sizes.most_common(8)),
                   modes["gray"], modes["alpha"])

    @property
    def lossy(self) -> set[str]:
        """Formats among them that lose detail."""
        return set(self.formats) & set(LOSSY)


@dataclass(frozen=True)
class ImageSet:
    """Pictures under one source, in the order of their names."""

    source: Source
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Array:
        """One picture as people and feature networks see it: gray is repeated, of many channels the first
        three.  -> HW3 uint8

        Alpha is laid over white, 16 bits become 8.  JobError if it cannot be read.
        """
        return to_rgb(to_8bit(self._load(index)))

    def levels(self, index: int) -> Array:
        """As `read`, but all channels where they are more than three.  -> HWC uint8"""
        array = to_8bit(self._load(index))
        return array if array.ndim == 3 and array.shape[2] > 3 else to_rgb(array)

    def _load(self, index: int) -> DecodedImage:
        try:
            picture = load_image(self.source, self.names[index])
        except Unreadable as error:
            raise JobError(str(error)) from None
        if picture.array.dtype.kind == "f":
            raise JobError(f"{picture.name} is {picture.array.dtype}, which has no fixed range that levels "
                           "could be of; "
                           "accepted: 8 or 16 bits, or i2i evaluate MODEL, which knows the range")
        return picture

    def headers(self, which: Iterable[int]) -> Iterator[tuple[bytes, Header]]:
        """The sha256 of some files' bytes, and their headers.  JobError names one that is no picture."""
        for index in which:
            name = self.names[index]
            try:
                data = self.source.read(name)
                yield hashlib.sha256(data).digest(), header(data)
            except Unreadable as error:
                raise JobError(f"{self.source.root}/{error}") from None
            except Exception as error:      # Image.open raises OSError, SyntaxError, ValueError ...
                raise JobError(f"{self.source.root}/{name}: {error}") from None

    def facts(self) -> ImageSetFacts:
        """Read every file's bytes and header once.  JobError names a file that is no picture."""
        return ImageSetFacts.of(self.headers(range(len(self))))


def open_image_set(where: str | Path, option: str) -> ImageSet:
    """All pictures below a folder, in a zip or of a bundled data set.  RequestError if there are none."""
    source = open_source(where)
    names = source.names()
    if not len(names):
        raise RequestError(f"{option} {where} holds no images ({', '.join(EXTENSIONS)})")
    return ImageSet(source, names)


def pixel_digest(image: Array) -> str:
    """Equal for equal pixels, whatever the file format.  HWC uint8 -> hex"""
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()


def pair_sets(fake: ImageSet, real: ImageSet) -> list[tuple[int, int]]:
    """Indices of pictures of the same name but for the extension.  RequestError if some have no partner."""
    def stems(pictures: ImageSet) -> dict[str, int]:
        out: dict[str, int] = {}
        for i, name in enumerate(pictures.names):
            stem = name.rsplit(".", 1)[0]
            if stem in out:
                raise RequestError(f"{pictures.source.root}: {pictures.names[out[stem]]} and {name} have the "
                                   "same name but for the extension; "
                                   "one must go")
            out[stem] = i
        return out

    left, right = stems(fake), stems(real)
    alone = sorted(left.keys() ^ right.keys())
    if alone:
        raise RequestError(f"{len(alone)} of {len(left) + len(right)} files of {fake.source.root} and "
                           f"{real.source.root} have no partner "
                           f"of the same name, such as {', '.join(alone[:3])}; metrics of pairs need one for "
                           "each")
    return [(left[stem], right[stem]) for stem in sorted(left)]
