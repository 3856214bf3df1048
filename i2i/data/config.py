"""Settings of the data: what is read and how it is augmented."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from i2i.errors import require
from i2i.images.pil import MAX_PIXELS

MAX_SIDE = 2**15 - 1         # Pixels; a limit of OpenCV's resizing.
Resizing = Literal["auto", "nearest", "bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The settings data.*; sizes are HEIGHT,WIDTH or one number for both, and 0 follows the images."""

    direction: Annotated[Literal["ab", "ba"], Doc("Which side is the source")] = "ab"
    size: Annotated[tuple[int, ...], Doc("Size of training crops; 0: that of the images")] = (0,)
    load_size: Annotated[tuple[int, ...], Doc(
        "Size that images are resized to before the crop; 0: with data.jitter 286/256 of the crop, else and "
        "for generation that of the crop")] = (0,)
    jitter: Annotated[bool, Doc("Crop from a larger image, at a random place (Isola et al. 2017)")] = True
    flip: Annotated[bool, Doc("Mirror half of the images")] = True
    alpha: Annotated[Literal["drop", "keep"], Doc(
        "Composite transparent images over the background, or keep alpha as the last channel")] = "drop"
    background: Annotated[tuple[int, ...], Doc("One level of 0 to 255, or red,green,blue")] = (255,)
    a_range: Annotated[str, Doc(
        "Values of A that become -1 and 1: auto (bit depth, or floats found), full (of the type) or "
        "LOW,HIGH")] = "auto"
    b_range: Annotated[str, Doc("The same for B")] = "auto"
    a_resize: Annotated[Resizing, Doc(
        "How images of A are resized; auto: by nearest neighbors where they have few exact colors, as label "
        "maps do, else bicubic")] = "auto"
    b_resize: Annotated[Resizing, Doc("The same for B")] = "auto"
    transforms: Annotated[str, Doc(
        "File of an albumentations pipeline for training images, the same for A and B")] = ""
    a_transforms: Annotated[str, Doc("One for images of A alone")] = ""
    b_transforms: Annotated[str, Doc("One for images of B alone")] = ""
    clahe: Annotated[float, Doc("Clip limit of CLAHE (Zuiderveld 1994); 0: off")] = 0.0
    clahe_tiles: Annotated[int, Doc("Tiles of CLAHE along each side of an image")] = 8
    clahe_sides: Annotated[Literal["both", "a", "b"], Doc(
        "Sides to equalize, whatever the direction")] = "both"
    max_pixels: Annotated[int, Doc("Images with more are refused as decompression bombs")] = MAX_PIXELS
    on_error: Annotated[Literal["stop", "skip"], Doc("If an image cannot be read")] = "stop"
    cache: Annotated[Literal["auto", "off", "memory", "disk"], Doc(
        "Where decoded images are kept; auto: in memory, if all of them fit")] = "auto"
    cache_folder: Annotated[str, Doc("Folder of cache=disk, which runs may share; default: RUN/decoded")] = ""

    def __post_init__(self) -> None:
        require(len(self.background) in (1, 3) and all(0 <= level <= 255 for level in self.background),
                "data.background", ",".join(map(str, self.background)),
                "one level or red,green,blue of 0 to 255")
        parse_range("data.a_range", self.a_range)
        parse_range("data.b_range", self.b_range)
        require(self.clahe == 0 or 1 <= self.clahe < float("inf"), "data.clahe", self.clahe,
                "0 (off), or a clip limit of 1 or more, such as 2")
        require(self.max_pixels > 0, "data.max_pixels", self.max_pixels, "1 or more")
        require(1 <= self.clahe_tiles <= 64, "data.clahe_tiles", self.clahe_tiles, "1 to 64")
        for key in ("size", "load_size"):
            value = getattr(self, key)
            require(len(value) in (1, 2) and all(side == 0 or 16 <= side <= MAX_SIDE for side in value),
                    f"data.{key}", ",".join(map(str, value)),
                    f"one side or height,width from 16 to {MAX_SIDE}; 0 follows the images")

    def clahe_options(self, side: str) -> dict[str, Any]:
        """The fields of the ImageFormat of side "a" or "b" that concern CLAHE."""
        equalized = self.clahe and self.clahe_sides in ("both", side)
        return {"clahe": self.clahe, "clahe_tiles": self.clahe_tiles} if equalized else {}


def parse_range(key: str, text: str) -> tuple[float, float] | None:
    """Parse LOW,HIGH; None for auto and full.  RequestError names the setting `key` for any other text."""
    if text in ("auto", "full"):
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    require(math.isfinite(low) and math.isfinite(high) and low < high, key, text,
            "auto, full, or the values that become -1 and 1, such as 0,4095")
    return low, high
