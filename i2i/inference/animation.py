"""Images that belong together as one file: a sheet, a strip, a GIF or an MP4."""

import io
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from i2i.errors import JobError, RequestError, require
from i2i.files import check_file, part_path, publish, write_atomically
from i2i.images.encode import encode
from i2i.images.format import Array, ImageFormat

SHEETS = (".png", ".jpg", ".jpeg")
MAX_SIDE = 65_000       # Pixels of a sheet: JPEG allows 65,535.
DEFAULT_FPS = 24
MAX_FPS = {".gif": 50, ".mp4": 240}     # Viewers slow down GIFs whose frames last less than 20 ms.


def check_output(out: str | Path, suffixes: Sequence[str]) -> Path:
    """The path of a file to write; RequestError if it has another suffix or cannot be written."""
    path = Path(out)
    require(path.suffix.lower() in suffixes, "--out", out, f"a file that ends in {', '.join(suffixes)}")
    check_file("--out", str(out))
    return path


def check_size(height: int, width: int) -> None:
    """RequestError for an image that is too large for a file."""
    if max(height, width) > MAX_SIDE:
        raise RequestError(f"the picture would be {width}x{height} pixels; accepted: at most {MAX_SIDE:,} "
                           "along a side; fewer images make it smaller")


def save_sheet(path: Path, sheet: Array) -> None:
    """Save an (H, W, C) uint8 image; JobError if that fails."""
    write_atomically(path, lambda part: part.write_bytes(encode(path.suffix, sheet, ImageFormat())))


def save_animation(path: Path, frames: Iterable[Array], count: int, fps: int) -> None:
    """Save `count` frames, (H, W, C) uint8 each, as a GIF that repeats or an MP4; JobError if that fails."""
    if path.suffix.lower() != ".gif":
        try:
            _save_mp4(path, frames, count, fps)
        except OSError as error:
            raise JobError(f"{path} could not be written: {error.strerror or error}") from None
        return
    # Times in a GIF are hundredths of a second: durations differ by one where the rate does not divide 100.
    times = [round(100 * i / fps) for i in range(count + 1)]
    durations = [10 * (end - start) for start, end in pairwise(times)]
    images, buffer = map(Image.fromarray, frames), io.BytesIO()
    next(images).save(buffer, "gif", save_all=True, append_images=images, duration=durations, loop=0)
    write_atomically(path, lambda part: part.write_bytes(buffer.getvalue()))


def _save_mp4(path: Path, frames: Iterable[Array], count: int, fps: int) -> None:
    """MPEG-4 part 2, which halves the resolution of color: odd sides get their last row or column twice."""
    part = part_path(path, ".part.mp4")     # OpenCV goes by the suffix.
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    try:
        for frame in frames:
            even = np.pad(frame, ((0, len(frame) % 2), (0, frame.shape[1] % 2), (0, 0)), "edge")
            if writer is None:
                writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), fps, even.shape[1::-1])
            writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        if writer is not None:
            writer.release()
        video = cv2.VideoCapture(str(part))         # OpenCV reports no errors of writing.
        complete = round(video.get(cv2.CAP_PROP_FRAME_COUNT)) == count
        video.release()
        if not complete:
            raise JobError(f"{path} could not be written: the MP4 encoder failed, or the disk is full; a "
                           ".gif or .png needs no encoder")
        part.replace(path)
        publish(path)
    finally:
        part.unlink(missing_ok=True)
