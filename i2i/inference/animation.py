"""Pictures that belong together as one file: a sheet, a strip, a GIF or an MP4."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from i2i.errors import JobError, RequestError, require
from i2i.images.encode import encode
from i2i.images.formats import Array, ImageFormat, to_pil
from i2i.inference.translate import save_image

SHEETS = (".png", ".jpg", ".jpeg")
ANIMATIONS = (".gif", ".mp4")
MAX_FRAMES = 65_000        # Pixels along a side of a sheet: JPEG holds 65,535.
# Pictures a second in a GIF: viewers slow down those that are shown for less than 20 ms.
MAX_FPS = 50
FPS = 24


def check_output(out: str | Path, accepted: Sequence[str]) -> Path:
    """The path of a file to be written.  RequestError if it does not end as it should or cannot be
    written."""
    path = Path(out)
    require(path.suffix.lower() in accepted, "--out", out, f"a file that ends in {', '.join(accepted)}")
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.part")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RequestError(f"--out {out} cannot be written: {error.strerror or error}") from None
    return path


def check_size(height: int, width: int) -> None:
    """RequestError for a sheet that no picture file should be."""
    if max(height, width) > MAX_FRAMES:
        raise RequestError(f"the picture would be {width}x{height} pixels; accepted: at most {MAX_FRAMES:,} "
                           "along a side; fewer images make it smaller")


def save_sheet(path: Path, sheet: Array) -> None:
    """One picture.  HWC uint8; JobError if it cannot be written"""
    _place(path, encode(path.suffix, sheet, ImageFormat()))


def save_animation(path: Path, frames: Iterable[Array], count: int, fps: int) -> None:
    """Frames that follow each other, without end where the format knows of that.  HWC uint8 each; JobError if
    it cannot be written"""
    if path.suffix.lower() == ".gif":
        _place(path, _gif(iter(frames), count, fps))
    else:
        _mp4(path, frames, count, fps)


def _place(path: Path, data: bytes) -> None:
    try:
        save_image(path, data)
    except OSError as error:
        raise JobError(f"{path} could not be written: {error.strerror or error}") from None


def _gif(frames: Iterator[Array], count: int, fps: int) -> bytes:
    """Hundredths of a second are all that a GIF counts: durations differ by one where the rate does not
    divide 100, and hold it on average."""
    ends = [round(100 * (i + 1) / fps) for i in range(count)]
    durations = [10 * (end - begin) for begin, end in zip([0, *ends], ends, strict=False)]
    pictures = (to_pil(frame) for frame in frames)
    buffer = io.BytesIO()
    next(pictures).save(buffer, "gif", save_all=True, append_images=pictures, duration=durations, loop=0)
    return buffer.getvalue()


def _mp4(path: Path, frames: Iterable[Array], count: int, fps: int) -> None:
    """MPEG-4 part 2, which halves the resolution of color: odd sides are made even by repeating the last row
    or column."""
    part = path.with_name(f".{path.stem}.part.mp4")     # The encoder goes by the ending.
    writer = None
    try:
        for frame in frames:
            even = np.pad(frame, ((0, len(frame) % 2), (0, frame.shape[1] % 2), (0, 0)), "edge")
            if writer is None:
                writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), fps, even.shape[1::-1])
            writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        if writer is not None:
            writer.release()
        film = cv2.VideoCapture(str(part))          # The encoder tells of no errors.
        whole = round(film.get(cv2.CAP_PROP_FRAME_COUNT)) == count
        film.release()
        if not whole:
            raise JobError(f"{path} could not be written: the MP4 encoder failed, or the disk is full; a "
                           ".gif or .png needs no encoder")
        part.replace(path)
    except OSError as error:
        raise JobError(f"{path} could not be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
