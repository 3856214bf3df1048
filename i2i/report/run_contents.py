"""Read what a report shows from a run folder: an absent file is an empty part, a damaged one a problem."""

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL.PngImagePlugin import PngImageFile

from i2i.errors import RequestError
from i2i.runs import log
from i2i.runs.folder import RunFolder, split_run

PNG = b"\x89PNG\r\n\x1a\n"
MAX_SAMPLE_SHEETS = 60
MAX_SAMPLE_BYTES = 48 << 20     # Of all sample sheets together, so that a phone still opens the page.
MAX_PAIRS = 24                  # Of the best, and of the worst.
Entry = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class EmbeddedImage:
    """An image file as a data URL, with its size in pixels."""

    data: str
    width: int
    height: int

    @staticmethod
    def of(png: bytes, width: int, height: int) -> "EmbeddedImage":
        """The image in a PNG file."""
        return EmbeddedImage(f"data:image/png;base64,{base64.b64encode(png).decode()}", width, height)

    def zoom(self, available: int) -> int:
        """The largest whole number of screen pixels per image pixel, so that the image stays sharp."""
        return max(1, available // self.width)


@dataclass(frozen=True)
class ImagePair:
    """A strip of input, output and target, with the value of the metric."""

    name: str
    value: float | None
    image: EmbeddedImage


@dataclass
class RunContents:
    """Contents of a run folder, as the report shows them."""

    name: str
    config: Entry
    log: list[Entry] = field(default_factory=list)
    speed: list[Entry] = field(default_factory=list)
    metrics: list[Entry] = field(default_factory=list)
    verdict: Entry = field(default_factory=dict)
    pairs: dict[str, list[ImagePair]] = field(default_factory=dict)
    pairs_metric: str = ""
    pairs_split: str = ""
    samples: list[tuple[int, EmbeddedImage]] = field(default_factory=list)
    samples_found: int = 0
    collapse: list[Entry] = field(default_factory=list)
    collapse_image: EmbeddedImage | None = None
    problems: list[str] = field(default_factory=list)
    card: Any = None            # A DataCard, if one is wanted.

    @property
    def images(self) -> int:
        """Images seen so far."""
        return max((entry["images"] for entry in [*self.log, *self.metrics]), default=0)

    @property
    def detection(self) -> Entry:
        """The collapse that was detected, empty if there was none."""
        return next((part(entry, "detection") for entry in self.collapse if part(entry, "detection")), {})


def read_run(run: str | Path) -> RunContents:
    """Read a run folder, or RUN@IMAGES, the run until then.  RequestError if it is none or has no logs."""
    path, which = split_run(run)
    folder, contents = RunFolder(path), read_logs(path)
    if not contents.log and not contents.metrics:
        raise RequestError(f"{folder.path} has no logs yet: the run has not reached its first log entry "
                           "(train.log_every)")
    _read_samples(folder.path, contents)
    if isinstance(file := contents.detection.get("image"), str):
        contents.collapse_image = _read_image(folder.path, file, contents.problems)
    _read_pairs(folder.path, contents)
    if which not in ("", "last"):
        _cut(contents, which)
    return contents


def read_logs(path: str | Path) -> RunContents:
    """Read what a run folder holds but for its images.  RequestError if it is none."""
    folder = RunFolder(path)
    if folder.path.is_file():
        raise RequestError(f"{folder.path} is a file; accepted: a run folder made by i2i train")
    config = folder.read_config()
    if not isinstance(config, dict):
        raise RequestError(f"{folder.config} is not the config of a run")
    contents = RunContents(folder.path.resolve().name, config)
    contents.log, contents.speed, contents.metrics, contents.collapse = (
        _read_log(path, contents.problems)
        for path in (folder.log, folder.speed, folder.metrics, folder.collapse))
    contents.verdict = _read_object(folder.verdict, contents.problems)
    return contents


def _cut(contents: RunContents, which: str) -> None:
    """Cut the contents back to an image count, or to the best evaluation."""
    best = part(contents.verdict, "best").get("images")
    images = number(best if which == "best" else int(which) if which.isdecimal() and len(which) < 16 else 0)
    if not images:
        raise RequestError(f"{contents.name}@{which[:16]} cannot be shown; accepted: {contents.name}@ and "
                           "a number of images, such as 10000, or best in a run that has one")
    if images >= contents.images:
        return
    contents.name += f"@{images:.0f}"
    for name in ("log", "speed", "metrics", "collapse"):
        setattr(contents, name, [entry for entry in getattr(contents, name) if entry["images"] <= images])
    contents.samples = [sample for sample in contents.samples if sample[0] <= images]
    contents.samples_found = len(contents.samples)
    contents.verdict, contents.pairs = {}, {"best": [], "worst": []}
    if not contents.log and not contents.metrics:
        raise RequestError(f"{contents.name} has no log entries: the first is later")
    if not contents.detection:
        contents.collapse_image = None


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def number(value: object) -> float | None:
    """A finite number, or None."""
    return float(value) if log.is_number(value) else None       # type: ignore[arg-type]


def part(entry: Entry, key: str) -> Entry:
    """A table within an entry, empty if it is absent or something else."""
    found = entry.get(key)
    return found if isinstance(found, dict) else {}


def _read_log(path: Path, problems: list[str]) -> list[Entry]:
    """The entries of a log that have an image count, sorted by it."""
    try:
        found = log.read(path)
        lines = path.read_bytes().count(b"\n") if path.exists() else 0     # The last one may be incomplete.
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.name} cannot be read ({_reason(error)})")
        return []
    good = [entry for entry in found if isinstance(entry, dict) and number(entry.get("images")) is not None]
    if len(good) < lines:
        problems.append(f"{path.name}: {lines - len(good):,} of {lines:,} lines are not what i2i writes")
    return sorted(good, key=lambda entry: entry["images"])


def _read_object(path: Path, problems: list[str]) -> Entry:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name} cannot be read ({_reason(error)})")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} is not what i2i writes")
        return {}
    return found


def _read_image(folder: Path, file: str, problems: list[str]) -> EmbeddedImage | None:
    """An image of the run folder, decoded to be sure that a browser can; None, and a problem, otherwise."""
    try:
        if not Path(os.path.realpath(folder / file)).is_relative_to(os.path.realpath(folder)):
            raise ValueError("lies outside the run folder")
        data = (folder / file).read_bytes()
        if not data.startswith(PNG):
            raise ValueError("is not a PNG image")
        with PngImageFile(io.BytesIO(data)) as image:       # Unlike Image.open, of any size.
            image.load()
        return EmbeddedImage.of(data, *image.size)
    except FileNotFoundError:
        problems.append(f"{file} does not exist")
    except (OSError, SyntaxError) as error:         # SyntaxError: broken chunks.
        problems.append(f"{file} is damaged: {_reason(error)}")
    except ValueError as error:
        problems.append(f"{file} {error}")
    return None


def _read_samples(folder: Path, contents: RunContents) -> None:
    paths = sorted((path for path in folder.glob("samples/*.png") if path.stem.isdecimal()),
                   key=lambda path: int(path.stem))
    contents.samples_found = len(paths)
    size = sum(path.stat().st_size for path in paths if path.exists())
    most = max(2, min(MAX_SAMPLE_SHEETS, MAX_SAMPLE_BYTES * len(paths) // max(size, 1)))
    for path in evenly_spaced(paths, most):
        if image := _read_image(folder, f"samples/{path.name}", contents.problems):
            contents.samples.append((int(path.stem), image))


def _read_pairs(folder: Path, contents: RunContents) -> None:
    found = _read_object(folder / "pairs.json", contents.problems)
    contents.pairs_metric, contents.pairs_split = str(found.get("metric", "")), str(found.get("split", ""))
    for side in ("best", "worst"):
        listed = found.get(side)
        contents.pairs[side] = []
        for each in (listed if isinstance(listed, list) else [])[:MAX_PAIRS]:
            try:
                name, file, value = str(each["name"]), str(each["file"]), number(each.get("value"))
            except (KeyError, TypeError, AttributeError):
                contents.problems.append(f"pairs.json: an entry of {side} without name and file")
                continue
            if image := _read_image(folder, file, contents.problems):
                contents.pairs[side].append(ImagePair(name, value, image))


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
