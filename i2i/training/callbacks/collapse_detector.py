"""Has the generator collapsed?  Asked every thousand images or so while a run trains; answered once, with the
evidence.

A first look compares thumbnails of what a few fixed inputs give, which costs next to nothing.  What it
suspects is looked at again, at more pictures, by the features of a network; only if these agree does the
alarm ring.  All that it knows is in collapse.jsonl, which is cut with the other logs when a run is resumed,
and it looks at fixed places of a run, so a resumed run rings where the other one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from i2i.files import write_atomically
from i2i.metrics import collapse
from i2i.metrics.precision_recall import manifold, nearest_neighbors
from i2i.recipes.base import Recipe
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.training.callbacks.collapse_grid import reduced, select_rows, sheet
from i2i.training.callbacks.embedding import SCREEN, Embedding, thumbnails
from i2i.training.callbacks.fixed_inputs import FixedInputs

Matrix = NDArray[Any]
LOW = 0.4           # Shares of what real pictures have, below which thumbnails are suspect,
LOW_FEATURES = 0.6  # and below which features confirm it.
FALL = 2.0          # A reading has fallen if it was so many times as high before, and not low,
IN_A_ROW = 4        # and has stayed low for so many readings.
GRACE = 20          # Readings, and
# steps, before which what was never high is no collapse: generators begin with gray pictures that all look
# alike.
GRACE_STEPS = 2_000
AGAIN = 1.1         # What features did not confirm is looked at again when the run is so many times as long.
READINGS = ("diversity", "distinct", "within", "between")


@dataclass(frozen=True)
class Advice:
    """What to try, why, and how it is typed."""

    why: str
    command: str


@dataclass(frozen=True)
class Reading:
    """Generated pictures and real ones, as points, also moved, with their classes where these are known."""

    fake: Matrix
    real: Matrix
    moved: tuple[Matrix, Matrix]
    fake_labels: Matrix | None
    real_labels: Matrix | None
    pictures: Tensor

    @cached_property
    def shares(self) -> dict[str, float]:
        """The readings."""
        return collapse.collapse_ratios(self.fake, self.real, self.fake_labels, self.real_labels, variants=self.moved)

    @cached_property
    def pairs(self) -> Matrix:
        """Near-duplicates among the generated ones, nearest first.  -> P×2"""
        fake, real = self.moved
        return collapse.near_duplicates(fake, collapse.NEAR_DUPLICATE_RATIO * collapse.median_nearest_distance(real))

    def classes_reached(self) -> dict[str, float]:
        """Of a generator that is told no classes: of how many the real pictures nearest to its own are, as
        the exponential of the entropy, beside what that is for other real pictures."""
        labels = self.real_labels
        if self.fake_labels is not None or labels is None or len(self.real) < 4:
            return {}
        return {"classes": round(effective_number(labels[nearest_neighbors(self.fake, self.real)[1]]), 2),
                "classes_real": round(effective_number(labels[collapse.distance_table(self.real).argmin(1)]),
                                      2)}


Advise = Callable[[str], Sequence[Advice]]      # Kind of collapse -> remedies.


def has_collapsed(values: Sequence[float], *, late: bool) -> bool:
    """Whether a reading has been low four times in a row, and was twice as high before, twice in a row; or it
    is late and it never was high."""
    last, before = values[-IN_A_ROW:], values[:-IN_A_ROW]
    if len(last) < IN_A_ROW or max(last) >= LOW:
        return False
    highest = max((min(two) for two in pairwise(before)), default=0.0)
    return highest > max(LOW, FALL * max(last)) or (late and len(values) >= GRACE)


def is_suspicious(history: Sequence[Mapping[str, Any]], batch: int) -> list[tuple[str, str]]:
    """(what is generated, reading) of all that look collapsed at the last entry of collapse.jsonl."""
    late = bool(history) and history[-1]["images"] >= GRACE_STEPS * batch
    keys = [key for key,
            value in history[-1].items() if isinstance(value, dict)
            and key not in ("confirmed", "rang")] if history else []
    return [(key, name) for key in keys for name in READINGS if name in history[-1][key]
            and has_collapsed([entry[key][name] for entry in history if name in entry.get(key, {})],
                              late=late)]


class CollapseDetector:
    """The readings, the second look and the bell.  `screen` and `probe` are few inputs and more."""

    def __init__(self, recipe: Recipe, screen: FixedInputs, probe: FixedInputs, folder: RunFolder,
                 device: torch.device, *, look: Callable[[], Embedding],
                 advise: Advise, tell: Callable[[str], None], batch: int, stops: bool) -> None:
        self.recipe, self.screen, self.probe, self.folder, self.device = recipe, screen, probe, folder, device
        self.look, self.advise, self.tell, self.batch, self.stops = look, advise, tell, batch, stops
        self._small = thumbnails(SCREEN)
        self._history: list[dict[str, Any]] | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of collapse.jsonl, read when they are first asked for: after the run has been
        restored."""
        if self._history is None:
            self._history = log.read(self.folder.collapse)
        return self._history

    @property
    def detection(self) -> dict[str, Any] | None:
        """What was told when it rang."""
        return next((entry["rang"] for entry in self.history if "rang" in entry), None)

    def __call__(self, live: nn.ModuleDict, images: int) -> bool:
        """Look at what G makes now, and ring if that is due.  Leaves the modules in eval mode.  -> whether
        the run is to stop"""
        entry: dict[str, Any] = {"images": images,
                                 **{key: seen.shares for key,
                                    seen in self._seen(live, self.screen, self._small).items()}}
        had_rung, history = self.detection, self.history
        history.append(entry)
        if not had_rung and (found := is_suspicious(history, self.batch)) and images >= self._patience():
            self._look_again(live, entry, found)
        log.append(self.folder.collapse, entry)
        return self.stops and "rang" in entry

    def _seen(self, live: nn.ModuleDict, probe: FixedInputs, look: Embedding) -> dict[str, Reading]:
        """What is made of the probe's inputs, beside its real pictures."""
        sides = self.recipe.targets
        real = {side: probe.real_points(look, side) for side in sides.values()}
        points: dict[str, list[tuple[Matrix, Matrix]]] = {}
        pictures: dict[str, list[Tensor]] = {}
        for made in probe.made(self.recipe, live, self.device):
            for key, image in made.items():
                points.setdefault(key, []).append((look.take(image), look.moved(image)))
                pictures.setdefault(key, []).append(reduced(image))
        labels = probe.classes if "c" in self.recipe.required_keys else None
        out = {}
        for key, each in points.items():
            (fake, moved), (wanted, wanted_moved,
                            classes) = (np.concatenate(parts)
                                        for parts in zip(*each, strict=True)), real[sides[key]]
            out[key] = Reading(fake, wanted, (moved, wanted_moved), labels, classes, torch.cat(pictures[key]))
        return out

    def _patience(self) -> float:
        """The images at which features may be asked again."""
        return max((AGAIN * entry["images"] for entry in self.history if "confirmed" in entry), default=0.0)

    def _look_again(self, live: nn.ModuleDict, entry: dict[str, Any],
                    found: Sequence[tuple[str, str]]) -> None:
        look = self.look()
        seen = self._seen(live, self.probe, look)
        entry["confirmed"] = {key: seen[key].shares for key in dict.fromkeys(key for key, _ in found)}
        sure = [(key, name) for key, name in found if entry["confirmed"][key].get(name, 1.0) < LOW_FEATURES]
        if sure:
            self._ring(entry, look, seen[sure[0][0]], *sure[0])

    def _ring(self, entry: dict[str, Any], look: Embedding, seen: Reading, key: str, reading: str) -> None:
        """The picture first: what the log tells of is there."""
        figures = seen.shares | describe_count(seen.fake, seen.real, seen.pairs) | seen.classes_reached()
        kind, picture = collapse_kind(figures), f"alarm-{entry['images']:08d}.png"
        made, beside = seen.pictures, {"real": self._pictures(self.probe.wanted, self.recipe.targets[key])}
        if source := self.recipe.sources.get(key):
            beside = {"inputs": self._pictures(self.probe.given, source)} | beside
        write_atomically(self.folder.path / picture,
                         lambda path: Image.fromarray(sheet(made, beside, seen.pairs)).save(path, "png"))
        entry["rang"] = {"images": entry["images"], "of": key, "reading": reading, "kind": kind,
                         "features": look.name, "figures": figures,
                         "sentence": sentence(kind, entry["images"], key, len(made), figures,
                                              bool(self.recipe.sources)),
                         "picture": picture, "remedies": [vars(remedy) for remedy in self.advise(kind)]}
        for line in message(entry["rang"], self.folder.path):
            self.tell(line)

    def _pictures(self, read: Callable[[int], Mapping[str, Tensor]], side: str) -> Tensor:
        """Those of the rows that the sheet shows, in their order."""
        rows = self.probe.rows
        return torch.cat([reduced(read(rows[i])[side][None]) for i in select_rows(len(rows))])


def describe_count(fake: Matrix, real: Matrix, pairs: Matrix) -> dict[str, Any]:
    """The birthday test, and how much of the real the pictures cover.  N×D, M×D, P×2"""
    out: dict[str, Any] = {"near_duplicates": len(pairs), "n": len(fake)}
    if len(pairs):
        out["different"] = [round(value, 1) for value in collapse.support_size(len(fake), len(pairs))]
    if min(len(fake), len(real)) > 3:
        out |= {key: round(value, 4) for key,
                value in manifold(fake, real, k=3).scores().items()
                if key in ("precision", "recall", "coverage")}
    return out


def effective_number(labels: Matrix) -> float:
    """exp of the entropy of the labels' frequencies: 1 where all are equal, K where K are equally
    frequent."""
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(np.exp(-(share * np.log(share)).sum()))


def collapse_kind(figures: Mapping[str, Any]) -> str:
    """`inter-class`: the classes look alike.  `intra-class`: the pictures of a class do.  `collapse` where
    there are no classes to tell by."""
    if "classes" in figures:
        return "inter-class" if figures["classes"] < LOW_FEATURES * figures["classes_real"] else "intra-class"
    if "within" not in figures:
        return "collapse"
    return "inter-class" if figures.get("between", 1.0) < LOW_FEATURES else "intra-class"


_KINDS = {"inter-class": "inter-class collapse, all classes look alike",
          "intra-class": "intra-class collapse, the pictures of a class look alike",
          "collapse": "collapse"}


def sentence(kind: str, images: int, key: str, n: int, figures: Mapping[str, Any], translates: bool) -> str:
    """What has happened, in one line with its figures."""
    what = f"outputs ({key}) for {n} different inputs" if translates else f"generated pictures, {n} of them,"
    parts = [f"{what} are {figures['diversity']:.2f} as far from one another as real ones"]
    inside = [f"{name} {figures[name]:.2f}" for name in ("within", "between") if name in figures]
    parts[0] += f" ({', '.join(inside)} classes)" if inside else ""
    if "different" in figures:
        count, low, high = figures["different"]
        parts.append(f"{figures['near_duplicates']} pairs are near-duplicates, as of {count:.3g} different "
                     "pictures "
                     f"({low:.3g} to {high:.3g}, birthday test)")
    if "classes" in figures:
        parts.append(f"they resemble {figures['classes']:.2g} classes, real ones "
                     f"{figures['classes_real']:.2g}")
    if "recall" in figures:
        parts.append(f"recall {figures['recall']:.2f}")
    return f"{_KINDS[kind]}, seen at {images:,} images: " + "; ".join(parts)


def message(rang: Mapping[str, Any], run: Path) -> list[str]:
    """What the alarm says, line by line."""
    tries = [f"  try: {remedy['command']}   ({remedy['why']})" for remedy in rang["remedies"]]
    return [f"alarm: {rang['sentence']}", f"  look at {run / rang['picture']}", *tries]
