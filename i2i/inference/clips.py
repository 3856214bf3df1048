"""Translate videos and animated images: frames in, frames out, with their times."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from i2i.data.sources import fetched, is_url
from i2i.errors import JobError, RequestError
from i2i.files import atomic_path
from i2i.images import pil
from i2i.images.convert import add_alpha, conversion_notes, to_8bit, to_array
from i2i.images.format import Array, ImageFormat
from i2i.inference import animated_image, video
from i2i.inference.memory import is_out_of_memory
from i2i.inference.model import default_batch_size
from i2i.inference.translator import Translator
from i2i.inference.video import Frame

Clip = video.Video | animated_image.AnimatedImage
OUTPUTS = (*video.OUTPUTS, *animated_image.OUTPUTS)


@dataclass
class ClipReport:
    """The outcome of the translation of a clip.

    Attributes:
        frames: how many there are.
        coding: codec and pixel format, or the format of an animated image.
        notes: what the result lacks, or was converted.
        changes: sums of the mean absolute differences of consecutive frames of the clip, and of the results.
    """

    frames: int = 0
    coding: str = ""
    notes: list[str] = field(default_factory=list)
    changes: Array = field(default_factory=lambda: np.zeros(2))

    def change(self) -> list[float]:
        """Mean absolute difference of consecutive frames, of 255, of the clip and of the results; none of
        one frame."""
        return (self.changes / (self.frames - 1)).tolist() if self.frames > 1 else []

    def flicker(self) -> str:
        """How much more the results change from one frame to the next than the clip does."""
        if self.frames < 2:
            return "flicker: not defined for one frame"
        before, after = self.change()
        return (f"flicker {after - before:+.2f} levels: results change by {after:.2f} of 255 from frame to "
                f"frame, inputs by {before:.2f}")


def is_clip(path: str, still: bool = False) -> bool:
    """Whether a path is that of a video or GIF, by its extension, or of another animated image.

    With `still`, of animated images the first frame is meant, and only videos are clips.
    """
    file, suffix = Path(path), Path(path).suffix.lower()
    if suffix in video.INPUTS or (suffix == ".gif" and not still):
        return not file.is_dir()
    if suffix not in animated_image.INPUTS or still or not file.is_file():
        return False
    try:
        with pil.open_image(file.read_bytes()) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, ValueError):       # Reading it as an image says what is wrong.
        return False


def clip_target(path: str, out: str, image_format: ImageFormat, carry_alpha: bool = False) -> Path:
    """The file that the translation of a clip is written to: `out`, or one of the clip's name in that folder.

    RequestError if it would be the clip itself, or such files do not hold images of the format.
    """
    named = Path(out).suffix.lower() in OUTPUTS and not Path(out).is_dir()
    target = Path(out) if named else Path(out, Path(path).name)
    suffix = target.suffix.lower()
    if suffix not in OUTPUTS:
        raise RequestError(f"{suffix} files are not written; accepted: --out FILE, which ends in "
                           f"{', '.join(OUTPUTS)}")
    if image_format.dtype != "uint8" or image_format.colors not in (1, 3) or (
            image_format.alpha and suffix in video.OUTPUTS):
        raise RequestError(f"the results have {image_format}, which {suffix} files would not hold; accepted: "
                           "a folder of its frames as images")
    if carry_alpha and suffix in video.OUTPUTS:
        raise RequestError(f"--alpha carry: {suffix} files hold no alpha; accepted: "
                           f"{', '.join(animated_image.OUTPUTS)}")
    if os.path.realpath(target) == os.path.realpath(path):
        raise RequestError(f"--out {out} would overwrite the input; choose another file")
    return target


def open_clip(path: str, max_pixels: int | None = None) -> Clip:
    """Open a clip; behind a URL, a copy in the cache.  RequestError or JobError if it cannot be read, or its
    frames are too large."""
    path = str(fetched(path)) if is_url(path) else path
    if not Path(path).is_file():
        raise RequestError(f"{path} does not exist, or is not a file; accepted: a video")
    kind = video.Video if Path(path).suffix.lower() in video.INPUTS else animated_image.AnimatedImage
    try:
        clip = kind(Path(path))
        pil.check_pixels(clip.size[0], clip.size[1], max_pixels or pil.MAX_PIXELS)
        return clip
    except ValueError as error:
        raise JobError(f"{path}: {error}") from None


def translate_clip(model: Translator, path: str, target: Path, *, direction: str = "ab", batch_size: int = 0,
                   seed: int | None = None, flicker: bool = False, carry_alpha: bool = False,
                   max_pixels: int | None = None, progress: Callable[[int, int], None] | None = None
                   ) -> ClipReport:
    """Write the translation of every frame of a clip, with its times, loop and sound.

    Args:
        target: a file of one of OUTPUTS, which appears when all is done.
        batch_size: frames per pass through the network; 0 fits their size.
        seed: samples dropout and noise, the same in every frame, one frame at a time.
        flicker: measure `ClipReport.changes`.
        carry_alpha: results keep the alpha of frames where the model makes none and files hold it.
        max_pixels: clips with larger frames are refused.
        progress: called with the number of frames that are done, and of all, or 0 if it is not known.

    Raises:
        RequestError, JobError: if the clip cannot be read as a whole, or the result cannot be written.
    """
    with closing(open_clip(path, max_pixels)) as clip:
        report, last = ClipReport(notes=list(clip.notes)), tuple[Array, ...]()
        source, made = (model.formats[side] for side in model.sides(direction))

        def results() -> Iterator[tuple[Frame, Array]]:
            nonlocal last
            for frame, result in _translate(model, clip, direction, batch_size, seed):
                report.notes += [note for note in conversion_notes(frame.image, source)
                                 if note not in report.notes]
                array = to_array(result, made)
                if flicker:
                    pair = to_8bit(frame.image), array
                    if last:
                        report.changes += np.array([np.abs(now.astype(np.int16) - before).mean()
                                                    for now, before in zip(pair, last, strict=True)])
                    last = pair
                alpha = carry_alpha and frame.image.alpha and not made.alpha
                yield frame, add_alpha(array, made, frame.image.array[..., -1] if alpha else None)[0]
                report.frames += 1
                if progress:
                    progress(report.frames, max(clip.count, report.frames) if clip.count else 0)

        suffix = target.suffix.lower()
        with video.explained(f"{target} could not be written"), atomic_path(target) as part:
            if suffix in video.OUTPUTS:
                report.coding = video.write_video(part, suffix, clip, results(), video.best_codec())
            else:
                report.coding = animated_image.write_animation(part, suffix, clip, results())
    return report


def _translate(model: Translator, clip: Clip, direction: str, batch_size: int, seed: int | None
               ) -> Iterator[tuple[Frame, Tensor]]:
    width, height = clip.size
    model.check_memory(height, width, direction)
    size = 1 if seed is not None else batch_size or default_batch_size(height, width)
    frames, first = clip.frames(), None
    while batch := list(islice(frames, size)):
        first = first or batch[0].image.array.shape[:2]
        if any(frame.image.array.shape[:2] != first for frame in batch):
            raise JobError(f"{clip.path} has frames of several sizes; accepted: one size")
        try:
            images = torch.stack([model.prepare(frame.image, direction) for frame in batch])
            yield from zip(batch, model(images, seed=seed, direction=direction).cpu(), strict=True)
        except RequestError as error:
            raise RequestError(f"{clip.path}: {error}") from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            remedy = "smaller frames" if size == 1 else f"a --batch below {size}"
            raise JobError(f"{clip.path}: {len(batch)} frames of {width}x{height} do not fit in memory; "
                           f"accepted: {remedy}, or more memory") from None
