"""What a judge sees of planted faults: squared MMD of its features, relative to that of a collapsed set."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from i2i.images.format import Array
from i2i.metrics.feature_networks import FeatureExtractor
from i2i.metrics.kid import mmd2
from i2i.metrics.planted_faults import FAULTS, Fault, plant

COLLAPSED = 10          # Images of a collapsed set, each as often as it takes.
DRAWS = 8               # Of which images those are; their mean is the measure.
NO_FAULT = "other real images"
Key = tuple[str, float]         # Fault and strength.


@dataclass(frozen=True)
class Sample:
    """Real images to plant faults in, and others to compare with."""

    reals: Sequence[Array]              # n images (H, W, 3) uint8.
    pool: Sequence[Array]               # n or more others.
    labels: Array | None = None         # Of the pool.

    @classmethod
    def draw(cls, read: Callable[[int], Array], total: int, labels: Sequence[int] | None, n: int,
             seed: int = 0) -> "Sample":
        """n reals, and up to 3n others, of `total` images.  ValueError if there are fewer than 2n."""
        if total < 2 * n or n < 2 * COLLAPSED:
            raise ValueError(f"{n} images and as many others are needed, at least {2 * COLLAPSED}; these are "
                             f"{total:,}")
        order = np.random.default_rng(seed).permutation(total)[:4 * n]
        images = [read(int(i)) for i in order]
        known = None if labels is None else np.asarray(labels)[order[n:]]
        return cls(images[:n], images[n:], known)

    def chosen(self, fault: Fault, strength: float, draw: int = 0) -> Array | None:
        """Which n images of the pool a fault of the set leaves; None without labels or with too few."""
        n = len(self.reals)
        if fault.needs_labels and self.labels is None:
            return None
        assert fault.choose is not None
        order = np.random.default_rng(draw).permutation(n) if not fault.needs_labels \
            else np.arange(len(self.pool))
        labels = np.zeros(len(self.pool), int) if self.labels is None else self.labels
        indices = fault.choose(n, labels, strength)
        return order[indices] if len(indices) == n else None


@dataclass(frozen=True)
class Sensitivity:
    """What a judge sees: 0 is nothing, 1 as much as of ten images, each repeated; below 0 by chance."""

    seen: Mapping[Key, float]
    images_per_second: float        # Of one core.


def measure(extractor: FeatureExtractor, sample: Sample, faults: Mapping[str, Fault] = FAULTS,
            progress: Callable[[str, int, int], None] = lambda name, done, total: None) -> Sensitivity:
    """What a judge sees of each fault at each strength, and of other real images, as (NO_FAULT, 0)."""
    n, done, seconds = len(sample.reals), 0, 0.0
    planted = [(fault, strength) for fault in faults.values() if fault.plant for strength in fault.strengths]
    total = n * (len(planted) + 1) + len(sample.pool)

    def features(images: Sequence[Array]) -> Array:
        nonlocal done, seconds
        start = time.process_time()
        found: Array = extractor.extract(images)[0].double().numpy()
        seconds += time.process_time() - start
        done += len(images)
        progress(extractor.name, done, total)
        return found

    real, pool = features(sample.reals), features(sample.pool)
    seen = {(NO_FAULT, 0.0): mmd2(pool[:n], real)}
    for fault, strength in planted:
        seen[fault.name, strength] = mmd2(features(plant(fault, sample.pool[:n], strength)), real)
    for fault in faults.values():
        for strength in fault.strengths if fault.choose else ():
            draws = 1 if fault.needs_labels else DRAWS
            sets = [sample.chosen(fault, strength, draw) for draw in range(draws)]
            found = [mmd2(pool[each], real) for each in sets if each is not None]
            if found:
                seen[fault.name, strength] = float(np.mean(found))
    orders = [np.random.default_rng(draw).permutation(n) for draw in range(DRAWS)]
    unit = float(np.mean([mmd2(pool[order[np.arange(n) % COLLAPSED]], real) for order in orders]))
    return Sensitivity({key: value / unit for key, value in seen.items()}, done / seconds)


def seen_by_any(judges: Mapping[str, Sensitivity]) -> dict[Key, float]:
    """What a set of judges sees: as much as the one that sees most."""
    first, *_ = judges.values()
    return {key: max(each.seen[key] for each in judges.values()) for key in first.seen}


def table(judges: Mapping[str, Sensitivity]) -> str:
    """Markdown: a row for each fault and strength, a column for each judge."""
    rows = [["fault", "strength", *judges], ["---", "---", *("---:" for _ in judges)]]
    for name, strength in seen_by_any(judges):
        fault = FAULTS.get(name)
        rows.append([name, fault.describe(strength) if fault else "",
                     *(f"{each.seen[name, strength]:.2f}" for each in judges.values())])
    rows.append(["images a second and core", "",
                 *(f"{each.images_per_second:.0f}" for each in judges.values())])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def figures(judges: Mapping[str, Sensitivity]) -> dict[str, Any]:
    """What each judge sees of each fault and strength, and its speed, for JSON."""
    return {name: {"images_per_second": each.images_per_second,
                   "seen": [{"fault": fault, "strength": strength, "seen": value}
                            for (fault, strength), value in each.seen.items()]}
            for name, each in judges.items()}
