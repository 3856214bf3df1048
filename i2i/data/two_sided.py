"""What paired and unpaired datasets share: two sides, in two files or as the halves of an A|B strip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from i2i.data.dataset import Dataset, fingerprint
from i2i.data.sources import Unreadable
from i2i.images.format import Array, DecodedImage


@dataclass(frozen=True)
class TwoSidedDataset(Dataset):
    """A split with two sides, A and B."""

    a: Sequence[str]                # File names.
    b: Sequence[str]                # The same as `a` for strips.
    direction: str = "ab"           # "ba" makes B the images "a" of a sample.
    from_manifest: bool = False

    @cached_property
    def strips(self) -> bool:
        """Whether one file holds A and B side by side."""
        return self.a == self.b

    def fingerprint(self) -> str:
        return fingerprint(self.split, self.a, self.b)


def split_strip(strip: Array, name: str) -> tuple[Array, Array]:
    """The left and the right half of an A|B strip, HW or HWC.  Raises Unreadable if it is not one."""
    height, width = strip.shape[:2]
    if width % 2 or width <= height:
        raise Unreadable(name, f"is {width}x{height}; an A|B strip is wider than high and of even width")
    return strip[:, : width // 2], strip[:, width // 2:]


def split_strip_image(strip: DecodedImage) -> tuple[DecodedImage, DecodedImage]:
    """As split_strip, for a decoded image of a dataset."""
    try:
        a, b = split_strip(strip.array, strip.name)
    except Unreadable as error:
        raise Unreadable(error.name, f"{error.reason}; or A and B lie in two folders, such as trainA and "
                                     "trainB") from None
    return replace(strip, array=a), replace(strip, array=b)
