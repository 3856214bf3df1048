"""What a report is made of, read from a run folder; a file that is absent is an empty part, a damaged one is
named."""

from __future__ import annotations

import base64
import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, UnidentifiedImageError

from i2i.errors import RequestError
from i2i.runs import log
from i2i.runs.folder import RunFolder

MOST_PICTURES = 60              # Sample sheets on the page.
MOST_BYTES = 48 << 20           # All sample sheets together: a page that a phone still opens.
MOST_PAIRS = 24                 # Of the best, and of the worst.
Entry = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class EmbeddedImage:
    """An image file as the page shows it."""

    data: str                   # data:image/png;base64,…
    width: int
    height: int


@dataclass(frozen=True)
class ImagePair:
    """Input, output and target of one picture, and its figure."""

    name: str
    value: float | None
    picture: EmbeddedImage


@dataclass
class RunContents:
    """One run folder, ready for the page."""

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
    alarm: list[Entry] = field(default_factory=list)
    alarm_picture: EmbeddedImage | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How far the run is."""
        return max((entry["images"] for entry in [*self.log, *self.metrics]), default=0)

    @property
    def rang(self) -> Entry:
        """What the alarm told, empty if it never rang."""
        return next((entry["rang"] for entry in self.alarm if isinstance(entry.get("rang"), dict)), {})


def read(run: str | Path) -> RunContents:
    """Everything of a run folder; RequestError if it is none or has logged nothing yet."""
    folder = RunFolder(run)
    if folder.path.is_file():
        raise RequestError(f"{folder.path} is a file; accepted: a run folder made by i2i train")
    config = folder.read_config()
    if not isinstance(config, dict):
        raise RequestError(f"{folder.config} is not the config of a run")
    contents = RunContents(folder.path.resolve().name, config)
    contents.log = _entries(folder.log, contents.problems)
    contents.speed = _entries(folder.speed, contents.problems)
    contents.metrics = _entries(folder.metrics, contents.problems)
    if not contents.log and not contents.metrics:
        raise RequestError(f"{folder.path} has no logs yet: the run has not reached its first log entry "
                           "(train.log_every)")
    contents.verdict = _object(folder.path / "verdict.json", contents.problems)
    _read_samples(folder.path, contents)
    contents.alarm = _entries(folder.alarm, contents.problems)
    _read_alarm(folder.path, contents)
    _read_pairs(folder.path, contents)
    return contents


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, evenly chosen, first and last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def number(value: object) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value,
                                                                             bool) and math.isfinite(value) else None


def _entries(path: Path, problems: list[str]) -> list[Entry]:
    """Entries of a log in the order of their image counts, which every one of them must have."""
    try:
        found = log.read(path)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.name} cannot be read ({_reason(error)})")
        return []
    good = [entry for entry in found if isinstance(entry, dict) and number(entry.get("images")) is not None]
    if len(good) < len(found):
        problems.append(f"{path.name}: {len(found) - len(good):,} lines without an image count")
    return sorted(good, key=lambda entry: entry["images"])


def _object(path: Path, problems: list[str]) -> Entry:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name} cannot be read ({_reason(error)})")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path.name} is not what i2i writes")
        return {}
    return found


def _picture(path: Path) -> EmbeddedImage:
    """A picture, decoded once to be sure that a browser can; ValueError says what is wrong."""
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # Large is not damaged.
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                kind, (width, height) = (image.get_format_mimetype() or "image/png"), image.size
    except FileNotFoundError:
        raise ValueError("does not exist") from None
    except UnidentifiedImageError:
        raise ValueError("is not an image") from None
    # Pillow says SyntaxError for broken chunks.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"is damaged: {_reason(error)}") from None
    return EmbeddedImage(f"data:{kind};base64,{base64.b64encode(data).decode()}", width, height)


def _read_samples(folder: Path, contents: RunContents) -> None:
    paths = sorted((path for path in folder.glob("samples/*.png") if path.stem.isdecimal()),
                   key=lambda path: int(path.stem))
    contents.samples_found = len(paths)
    size = sum(path.stat().st_size for path in paths)
    most = max(2, min(MOST_PICTURES, MOST_BYTES * len(paths) // max(size, 1)))
    for path in evenly_spaced(paths, most):
        try:
            contents.samples.append((int(path.stem), _picture(path)))
        except ValueError as error:
            contents.problems.append(f"samples/{path.name} {error}")


def _read_alarm(folder: Path, contents: RunContents) -> None:
    """The picture that goes with what the alarm told."""
    rang = contents.rang
    if not isinstance(rang.get("picture"), str):
        return
    path = folder / rang["picture"]
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError("lies outside the run folder")
        contents.alarm_picture = _picture(path)
    except ValueError as error:
        contents.problems.append(f"{rang['picture']} {error}")


def _read_pairs(folder: Path, contents: RunContents) -> None:
    found = _object(folder / "pairs.json", contents.problems)
    contents.pairs_metric, contents.pairs_split = str(found.get("metric", "")), str(found.get("split", ""))
    for side in ("best", "worst"):
        listed = found.get(side)
        contents.pairs[side] = []
        for each in (listed if isinstance(listed, list) else [])[:MOST_PAIRS]:
            try:
                name, path = str(each["name"]), folder / str(each["file"])
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise ValueError("lies outside the run folder")
                contents.pairs[side].append(ImagePair(name, number(each.get("value")), _picture(path)))
            except (KeyError, TypeError, AttributeError):
                contents.problems.append(f"pairs.json: an entry of {side} without name and file")
            except ValueError as error:
                contents.problems.append(f"{each['file']} {error}")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
