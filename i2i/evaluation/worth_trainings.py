"""The trainings of `i2i worth`: which there are, how long they take, and each of them once."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from i2i.errors import RequestError
from i2i.evaluation.request import Progress
from i2i.evaluation.worth_classifier import Schedule, predict, train_classifier
from i2i.evaluation.worth_sets import LabeledImages, choose
from i2i.files import append_json_line, read_json_lines, try_lock, write_text
from i2i.images.format import Array

PLAN, TRAININGS = "plan.json", "trainings.jsonl"
TIMED_UPDATES = 5
RATIOS = tuple(map(Fraction, ("1/4", "1/2", "1", "2", "4")))
SHARES = (10.0, 25.0, 50.0, 100.0)


@dataclass(frozen=True)
class Condition:
    """What a classifier is trained on."""

    name: str
    real: bool = True
    augmented: bool = False
    ratio: Fraction | None = None       # Fakes for each real image.
    untranslated: bool = False          # Instead of fakes, what these were translated from.


REAL, FLIPS = Condition("real"), Condition("real, flips and crops", augmented=True)
FAKES_ALONE = Condition("fakes alone", real=False, ratio=Fraction(1))
SOURCES_ALONE = Condition("sources alone", real=False, ratio=Fraction(1), untranslated=True)


def added(ratio: Fraction, *, augmented: bool = False) -> Condition:
    """The condition that fakes are added at a ratio."""
    base = FLIPS if augmented else REAL
    return Condition(f"{base.name} + {ratio} fake", augmented=augmented, ratio=ratio)


def main_ratio(ratios: Sequence[Fraction]) -> Fraction:
    """The ratio that the verdict is about: 1, or what is nearest to it."""
    return min(ratios, key=lambda ratio: abs(float(np.log(float(ratio)))))


@dataclass(frozen=True)
class Sets:
    """What is trained and tested on."""

    real: LabeledImages
    test: LabeledImages
    fakes: LabeledImages
    sources: LabeledImages | None       # What the fakes were translated from.
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """One classifier to train."""

    condition: Condition
    share: float                # Of the real training images, in percent.
    seed: int

    @property
    def key(self) -> tuple[str, float, int]:
        return self.condition.name, self.share, self.seed


@dataclass(frozen=True)
class Comparison:
    """All that decides which classifiers are trained."""

    schedule: Schedule
    shares: tuple[float, ...] = SHARES
    ratios: tuple[Fraction, ...] = RATIOS
    seeds: int = 5
    progress: Progress = field(default=lambda stage, done, total: None, compare=False)

    def conditions(self, sets: Sets, share: float, warn: Callable[[str], None] = lambda line: None
                   ) -> list[Condition]:
        """The conditions at a share for which there are enough fakes; `warn` gets the others."""
        possible = [ratio for ratio in self.ratios if not lacking(sets, share, ratio)]
        if left_out := [ratio for ratio in self.ratios if ratio not in possible]:
            warn(f"at {share:g} % of the real images, {', '.join(map(str, left_out))} fake to a real image "
                 f"is left out: {lacking(sets, share, max(left_out))}")
        found = [REAL, FLIPS, *map(added, possible)]
        if possible:
            found.append(added(main_ratio(possible), augmented=True))
        alone = [FAKES_ALONE, *[SOURCES_ALONE] * (sets.sources is not None)]
        return found + [each for each in alone if share == 100 and not lacking(sets, 100, Fraction(1))]

    def trainings(self, sets: Sets) -> Iterator[Training]:
        """All of them, seed by seed, so that an unfinished job has compared everything."""
        for seed in range(self.seeds):
            for share in sorted(self.shares, reverse=True):
                for condition in self.conditions(sets, share):
                    yield Training(condition, share, seed)

    def count(self, sources: bool) -> int:
        """How many there are if there are enough fakes."""
        return self.seeds * (len(self.shares) * (3 + len(self.ratios)) + (100 in self.shares) * (1 + sources))


def real_counts(sets: Sets, share: float) -> Array:
    """Real images of each class at a share, one or more."""
    return np.maximum(1, np.rint(sets.real.counts(len(sets.classes)) * share / 100)).astype(int)


def fake_counts(sets: Sets, share: float, ratio: Fraction) -> Array:
    """Fakes of each class at a share of the real images and a ratio."""
    return np.maximum(1, np.rint(real_counts(sets, share) * float(ratio))).astype(int)


def lacking(sets: Sets, share: float, ratio: Fraction) -> str:
    """Why there are too few fakes for a ratio; empty if there are enough."""
    wanted = fake_counts(sets, share, ratio)
    counts = sets.fakes.counts(len(sets.classes))
    worst = int((wanted - counts).argmax())
    if wanted[worst] <= counts[worst]:
        return ""
    return f"class {sets.classes[worst]} has {counts[worst]:,} fakes, and {wanted[worst]:,} would do"


def training_images(sets: Sets, training: Training) -> tuple[Array, Array]:
    """Pixels and labels that a classifier is trained on; smaller shares are parts of larger ones."""
    condition, parts = training.condition, []
    if condition.real:
        real = choose(sets.real, real_counts(sets, training.share), training.seed)
        parts.append((sets.real.pixels[real], sets.real.labels[real]))
    if condition.ratio is not None:
        images = sets.sources if condition.untranslated and sets.sources is not None else sets.fakes
        chosen = choose(images, fake_counts(sets, training.share, condition.ratio), training.seed)
        parts.append((images.pixels[chosen], images.labels[chosen]))
    pixels, labels = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


def asked_fakes(sets: Sets) -> Array:
    """Indices of the fakes that classifiers of real images are asked about, as many as test images."""
    return np.random.default_rng(0).permutation(len(sets.fakes))[:len(sets.test)]


def run_trainings(sets: Sets, comparison: Comparison, folder: Path) -> list[dict[str, Any]]:
    """Train all classifiers that a folder does not have yet, and return what all of them answered.

    Raises:
        RequestError: if the folder holds trainings of other sets or of another schedule, or another process
            writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / ".lock")
    if lock is None:
        raise RequestError(f"another process is writing to {folder}")
    try:
        _check_plan(sets, comparison.schedule, folder)
        done = {(each["condition"], each["share"], each["seed"]): each
                for each in read_json_lines(folder / TRAININGS)}
        wanted = list(comparison.trainings(sets))
        for i, training in enumerate(wanted):
            if training.key not in done:
                done[training.key] = entry = run_training(sets, training, comparison.schedule)
                append_json_line(folder / TRAININGS, entry)
            comparison.progress("trainings", i + 1, len(wanted))
        return [done[training.key] for training in wanted]
    finally:
        lock.release()


def run_training(sets: Sets, training: Training, schedule: Schedule) -> dict[str, Any]:
    """Train one classifier: its answers to the test images, and to fakes if it saw real images alone."""
    pixels, labels = training_images(sets, training)
    network = train_classifier(pixels, labels, len(sets.classes), schedule, seed=training.seed,
                               augmented=training.condition.augmented)
    name, share, seed = training.key
    found = {"condition": name, "share": share, "seed": seed, "images": len(pixels),
             "answers": predict(network, sets.test.pixels, schedule.device).tolist()}
    if training.condition == REAL and share == 100:
        fakes = sets.fakes.pixels[asked_fakes(sets)]
        found["answers_to_fakes"] = predict(network, fakes, schedule.device).tolist()
    return found


def seconds_per_training(real: LabeledImages, test: LabeledImages, classes: int, schedule: Schedule) -> float:
    """An estimate from a few updates and a part of the test images."""
    some = np.arange(schedule.batch_size) % len(real)
    few = Schedule(**(asdict(schedule) | {"updates": TIMED_UPDATES}))
    pixels, labels = real.pixels[some], real.labels[some]
    network = train_classifier(pixels, labels, classes, few, seed=0)        # Warms up.
    start = time.perf_counter()
    train_classifier(pixels, labels, classes, few, seed=0, augmented=True)
    trained = time.perf_counter()
    part = test.pixels[:256]
    predict(network, part, schedule.device)
    return ((trained - start) / TIMED_UPDATES * schedule.updates
            + (time.perf_counter() - trained) * len(test) / len(part))


def _check_plan(sets: Sets, schedule: Schedule, folder: Path) -> None:
    """Record what the trainings of a folder depend on; RequestError naming the first difference to before."""
    plan = {"real": sets.real.content, "test": sets.test.content, "fakes": sets.fakes.content,
            "sources": sets.sources.content if sets.sources else "", "classes": list(sets.classes),
            "size": sets.real.pixels.shape[1], **json.loads(json.dumps(asdict(schedule), default=str))}
    plan.pop("device")
    file = folder / PLAN
    if not file.exists():
        write_text(file, json.dumps(plan, indent=1) + "\n")
        return
    try:
        before = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise RequestError(f"{file} is not what i2i worth writes; choose another --out") from None
    for key, value in plan.items():
        if before.get(key) != value:
            raise RequestError(f"{folder} holds trainings of another comparison: {key} is "
                               f"{str(before.get(key))[:40]} there and {str(value)[:40]} here; choose "
                               "another --out")
