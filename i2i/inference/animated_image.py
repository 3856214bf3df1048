"""Reading and writing of animated images with Pillow: GIF, WebP and PNG."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from i2i.data.sources.base import error_reason
from i2i.errors import JobError
from i2i.images import pil
from i2i.images.color_space import declared_space
from i2i.images.encode import FILE_FORMATS
from i2i.images.format import Array
from i2i.images.truncation import check_end
from i2i.inference.video import Frame

INPUTS = (".gif", ".webp", ".png", ".apng", ".avif")
OUTPUTS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}       # Pillow's names of them.
MILLISECOND = Fraction(1, 1000)
GIF_TICK = 10               # Milliseconds.
NO_DURATION = 100           # Milliseconds for a frame that has none, as browsers show it.


class AnimatedImage:
    """An animated image that is read, with the attributes of a `Video`."""

    def __init__(self, path: Path) -> None:
        self.path, self.time_base, self.step, self.start = path, MILLISECOND, MILLISECOND, Fraction(0)
        self.sound, self.notes, self.aspect = list[Any](), list[str](), None
        self.on_sound: Any = None
        try:
            data = path.read_bytes()
            check_end(data)
            self.image = pil.open_image(data)
            self.declared, self.size = declared_space(data, self.image), self.image.size
            # The first image of a PNG may be none of its frames.
            self.first = int(bool(self.image.info.get("default_image")))
            self.count = getattr(self.image, "n_frames", 1) - self.first
        except Exception as error:      # OSError, SyntaxError, IndexError, ValueError, struct.error …
            raise JobError(f"{path} cannot be read: {error_reason(error)}") from None
        repeats = self.image.info.get("loop")
        self.loop = 1 if repeats is None else repeats + (self.image.format == "GIF" and repeats > 0)

    def close(self) -> None:
        """Close the file."""
        self.image.close()

    def frames(self) -> Iterator[Frame]:
        """All frames in order.  JobError if one is damaged."""
        time = Fraction(0)
        for number in range(self.count):
            try:
                self.image.seek(self.first + number)
                self.image.load()
                image = pil.from_pil(self.image.copy(), self.declared)
            except Exception as error:      # As above.
                raise JobError(f"{self.path} is damaged or cut short after {number:,} of {self.count:,} "
                               f"frames: {error_reason(error)}") from None
            duration = Fraction(self.image.info.get("duration") or NO_DURATION) * MILLISECOND
            yield Frame(replace(image, dpi=None), time, duration)
            time += duration


def write_animation(path: Path, suffix: str, clip: Any, results: Iterable[tuple[Frame, Array]]) -> str:
    """Write results, (H, W) or (H, W, C) uint8, with the times and loop of a clip.

    Pillow takes all of them at once; frames that are equal become one that is shown longer.

    Returns:
        The format.
    """
    images, durations, tick = list[Image.Image](), list[int](), (GIF_TICK if suffix == ".gif" else 1)
    for frame, array in results:
        start, end = (round(time / (tick * MILLISECOND))
                      for time in (frame.time, frame.time + frame.duration))
        durations.append(tick * (end - start))
        images.append(Image.fromarray(array))
    if not images:
        raise JobError(f"{clip.path} holds no frames")
    mode = max({image.mode for image in images}, key=len)       # With alpha, if one has it.
    first, *others = (image if image.mode == mode else image.convert(mode) for image in images)
    options = {} if suffix == ".gif" else dict(FILE_FORMATS[".webp" if suffix == ".webp" else ".png"].options)
    if suffix != ".gif" or clip.loop != 1:
        options["loop"] = clip.loop - (suffix == ".gif" and clip.loop > 1)
    if suffix == ".gif" and mode in pil.ALPHA_MODES:
        options["disposal"] = 2     # Else what was there before shows through.
    try:
        first.save(path, OUTPUTS[suffix], save_all=True, append_images=others,
                   duration=durations if others else durations[0], **options)
    except ValueError as error:
        raise JobError(f"{path} could not be written: {error}") from None
    return OUTPUTS[suffix]
