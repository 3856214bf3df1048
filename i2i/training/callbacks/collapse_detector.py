"""Detection of generator collapse during training.

A quick check compares thumbnails of the outputs for a few fixed inputs with thumbnails of real images,
which costs next to nothing.  If it looks suspicious, more outputs are compared by the features of a
network, and only if these agree is a collapse reported, once per run.  The whole state is in
collapse.jsonl, which is cut with the other logs when a run is resumed, and checks are at fixed positions,
so a resumed run detects what an uninterrupted one does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from i2i.data.labeled import ImageDataset
from i2i.data.sampler import evenly_spaced
from i2i.files import write_atomically
from i2i.metrics import collapse
from i2i.metrics.precision_recall import manifold_scores, nearest_neighbors
from i2i.recipes.base import Discriminates
from i2i.runs import log as logs
from i2i.runs.folder import RunFolder
from i2i.training.callbacks.base import Callback
from i2i.training.callbacks.collapse_report import COLUMNS, ROWS, Advice, advice_for, collapse_grid, shrink
from i2i.training.callbacks.evaluator import MIN_IMAGES
from i2i.training.callbacks.fixed_inputs import QUICK_SIZE, Embedding, FixedInputs, thumbnails
from i2i.training.job import Job
from i2i.training.trainer import Trainer

Matrix = NDArray[Any]
GENERATED_IMAGES = 64, 128      # In the quick and in the thorough check, from noise,
TRANSLATED_IMAGES = 16, 64      # or translated.
SUSPICIOUS_RATIO = 0.4      # Ratios to real images below which thumbnails are suspicious,
CONFIRMED_RATIO = 0.6       # and below which features confirm it.
FALL_FACTOR = 2.0           # A ratio has fallen if it was this many times as high before,
CONSECUTIVE_CHECKS = 4      # and has been low in this many checks since.
# What was never high is a collapse only after this many checks and steps: generators begin with gray images.
WARMUP_CHECKS, WARMUP_STEPS = 20, 2_000
RECHECK_GROWTH = 1.1        # What features did not confirm is checked again when the run is this much longer.
RATIOS = ("diversity", "distinct", "within", "between")


@dataclass(frozen=True)
class Observation:
    """Outputs of a generator beside real images, as embedded points.

    Args:
        fake, real: points, (N, D) and (M, D).
        shifted: both with shifted versions, (N, V, E) and (M, V, E).
        fake_labels: classes that the generator was given, (N,); None if it is unconditional.
        real_labels: classes of the real images, (M,), if known.
        images: the outputs, shrunk to what a collapse grid shows.
    """

    fake: Matrix
    real: Matrix
    shifted: tuple[Matrix, Matrix]
    fake_labels: Matrix | None
    real_labels: Matrix | None
    images: Tensor

    @cached_property
    def ratios(self) -> dict[str, float]:
        """The ratios to real images, of which 1 is as varied and 0 is collapse."""
        return collapse.collapse_ratios(self.fake, self.real, self.fake_labels, self.real_labels,
                                        variants=self.shifted)

    @cached_property
    def duplicates(self) -> Matrix:
        """Pairs of near-duplicates among the outputs, nearest first, (P, 2)."""
        fake, real = self.shifted
        radius = collapse.NEAR_DUPLICATE_RATIO * collapse.median_nearest_distance(real)
        return collapse.near_duplicates(fake, radius)

    def figures(self) -> dict[str, Any]:
        """Everything a report says: ratios, number of different images, coverage of images and classes."""
        figures: dict[str, Any] = {**self.ratios, "near_duplicates": len(self.duplicates),
                                   "n": len(self.fake)}
        if len(self.duplicates):
            estimate = collapse.support_size(len(self.fake), len(self.duplicates))
            figures["different"] = [round(value, 1) for value in estimate]
        if min(len(self.fake), len(self.real)) > 3:
            scores = manifold_scores(self.fake, self.real, k=3)
            figures |= {key: round(scores[key], 4) for key in ("precision", "recall", "coverage")}
            if self.fake_labels is None and self.real_labels is not None:
                neighbors = nearest_neighbors(self.fake, self.real)[1]
                real_neighbors = collapse.distance_table(self.real).argmin(1)
                figures |= {"classes": round(effective_number(self.real_labels[neighbors]), 2),
                            "classes_real": round(effective_number(self.real_labels[real_neighbors]), 2)}
        return figures


def effective_number(labels: Matrix) -> float:
    """Effective number of classes: exp of the entropy of their frequencies."""
    frequencies = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(np.exp(-(frequencies * np.log(frequencies)).sum()))


def has_collapsed(values: Sequence[float], *, warmed_up: bool) -> bool:
    """Whether a ratio has fallen and stayed low, or has been low from the start of a warmed-up run."""
    last, before = values[-CONSECUTIVE_CHECKS:], values[:-CONSECUTIVE_CHECKS]
    if len(last) < CONSECUTIVE_CHECKS or max(last) >= SUSPICIOUS_RATIO:
        return False
    highest = max((min(two) for two in pairwise(before)), default=0.0)      # In two successive checks.
    fell = highest > max(SUSPICIOUS_RATIO, FALL_FACTOR * max(last))
    return fell or (warmed_up and len(values) >= WARMUP_CHECKS)


def suspicious_ratios(history: Sequence[Mapping[str, Any]], batch_size: int) -> list[tuple[str, str]]:
    """(output, ratio) of all that look collapsed at the last line of collapse.jsonl."""
    if not history:
        return []
    warmed_up = history[-1]["images"] >= WARMUP_STEPS * batch_size
    outputs = [key for key, value in history[-1].items()
               if isinstance(value, dict) and key not in ("confirmed", "detection")]
    return [(output, name) for output in outputs for name in RATIOS if name in history[-1][output]
            and has_collapsed([entry[output][name] for entry in history if name in entry.get(output, {})],
                              warmed_up=warmed_up)]


def collapse_kind(figures: Mapping[str, Any]) -> str:
    """`inter-class` (classes look alike), `intra-class` (images of a class look alike), or `collapse`."""
    if "classes" in figures:
        few = figures["classes"] < CONFIRMED_RATIO * figures["classes_real"]
        return "inter-class" if few else "intra-class"
    if "within" not in figures:
        return "collapse"
    return "inter-class" if figures.get("between", 1.0) < CONFIRMED_RATIO else "intra-class"


KINDS = {"inter-class": "inter-class collapse, all classes look alike",
         "intra-class": "intra-class collapse, the images of a class look alike",
         "collapse": "collapse"}


def describe(kind: str, images: int, output: str, n: int, figures: Mapping[str, Any],
             translates: bool) -> str:
    """A collapse in one sentence, with its figures."""
    subject = f"outputs ({output}) for {n} different inputs" if translates else f"{n} generated images"
    parts = [f"{subject} are {figures['diversity']:.2f} as far from one another as real ones"]
    by_class = [f"{name} {figures[name]:.2f}" for name in ("within", "between") if name in figures]
    parts[0] += f" ({', '.join(by_class)} classes)" if by_class else ""
    if "different" in figures:
        count, low, high = figures["different"]
        parts.append(f"{figures['near_duplicates']} pairs are near-duplicates, as among {count:.3g} "
                     f"different images ({low:.3g} to {high:.3g}, birthday test)")
    if "classes" in figures:
        parts.append(f"they resemble {figures['classes']:.2g} classes, real ones "
                     f"{figures['classes_real']:.2g}")
    if "recall" in figures:
        parts.append(f"recall {figures['recall']:.2f}")
    return f"{KINDS[kind]}, detected at {images:,} images: " + "; ".join(parts)


class CollapseDetector(Callback):
    """Checks for collapse and reports it once per run.

    Args:
        quick, thorough: inputs of the two checks.
        embedding: the one of the thorough check.
    """

    def __init__(self, job: Job, quick: FixedInputs, thorough: FixedInputs, folder: RunFolder,
                 device: torch.device, embedding: Callable[[], Embedding],
                 log: Callable[[str], None]) -> None:
        self.quick, self.thorough, self.folder, self.device = quick, thorough, folder, device
        self.embedding, self.log, self.recipe = embedding, log, job.recipe
        self.advise: Callable[[str], Sequence[Advice]] = partial(advice_for, job)
        self.batch_size, self.stops = job.train.batch_size, job.train.on_collapse == "stop"
        self._thumbnails = thumbnails(QUICK_SIZE)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The lines of collapse.jsonl, first read after the run has been restored."""
        return logs.read(self.folder.collapse)

    @property
    def detection(self) -> dict[str, Any] | None:
        """What was reported, if a collapse was detected."""
        return next((entry["detection"] for entry in self.history if "detection" in entry), None)

    def on_step(self, trainer: Trainer, logs: Mapping[str, float] | None) -> None:
        if trainer.passed(trainer.config.collapse_every) and self(trainer.modules, trainer.images):
            trainer.stop("the generator has collapsed")

    def __call__(self, live: nn.ModuleDict, images: int) -> bool:
        """Check the generator; returns whether the run is to stop.  Puts the modules into eval mode."""
        observed = self._observe(live, self.quick, self._thumbnails)
        entry: dict[str, Any] = {"images": images}
        entry |= {output: each.ratios for output, each in observed.items()}
        detected_before = self.detection
        next_check = max((RECHECK_GROWTH * line["images"] for line in self.history if "confirmed" in line),
                         default=0.0)
        self.history.append(entry)
        suspicious = suspicious_ratios(self.history, self.batch_size)
        if suspicious and not detected_before and images >= next_check:
            self._check_thoroughly(live, entry, suspicious)
        logs.append(self.folder.collapse, entry)
        return self.stops and "detection" in entry

    def _observe(self, live: nn.ModuleDict, inputs: FixedInputs,
                 embedding: Embedding) -> dict[str, Observation]:
        sides = self.recipe.targets
        real = {side: inputs.real_points(embedding, side) for side in sides.values()}
        points: dict[str, list[tuple[Matrix, Matrix, Tensor]]] = {}
        for outputs in inputs.generate(self.recipe, live, self.device):
            for key, image in outputs.items():
                parts = embedding.embed(image), embedding.embed_shifted(image), shrink(image)
                points.setdefault(key, []).append(parts)
        fake_labels = inputs.labels if "c" in self.recipe.required_keys else None
        observations = {}
        for key, batches in points.items():
            fake, shifted, images = zip(*batches, strict=True)
            real_points, real_shifted = real[sides[key]]
            observations[key] = Observation(
                np.concatenate(fake), real_points, (np.concatenate(shifted), real_shifted), fake_labels,
                inputs.labels, torch.cat(images))
        return observations

    def _check_thoroughly(self, live: nn.ModuleDict, entry: dict[str, Any],
                          suspicious: Sequence[tuple[str, str]]) -> None:
        embedding = self.embedding()
        observed = self._observe(live, self.thorough, embedding)
        confirmed = entry["confirmed"] = {output: observed[output].ratios for output, _ in suspicious}
        for output, ratio in suspicious:
            if confirmed[output].get(ratio, 1.0) < CONFIRMED_RATIO:
                self._report(entry, embedding, observed[output], output, ratio)
                return

    def _report(self, entry: dict[str, Any], embedding: Embedding, observation: Observation, output: str,
                ratio: str) -> None:
        """Write the image, then the entry that refers to it, and report the collapse."""
        figures, images = observation.figures(), entry["images"]
        kind, file = collapse_kind(figures), f"collapse-{images:08d}.png"
        others = {"real": self._thorough_images(self.thorough.sample, self.recipe.targets[output])}
        if source := self.recipe.sources.get(output):
            others = {"inputs": self._thorough_images(self.thorough.inputs, source)} | others
        sheet = Image.fromarray(collapse_grid(observation.images, others, observation.duplicates))
        write_atomically(self.folder.path / file, lambda path: sheet.save(path, "png"))
        sentence = describe(kind, images, output, len(observation.fake), figures, bool(self.recipe.sources))
        advice = self.advise(kind)
        entry["detection"] = {"images": images, "output": output, "ratio": ratio, "kind": kind,
                              "features": embedding.name, "figures": figures, "sentence": sentence,
                              "image": file, "advice": [vars(each) for each in advice]}
        self.log(f"warning: {sentence}")
        self.log(f"  see {self.folder.path / file}")
        for each in advice:
            self.log(f"  try: {each.command}   ({each.reason})")

    def _thorough_images(self, read: Callable[[int], Mapping[str, Tensor]], side: str) -> Tensor:
        shown = evenly_spaced(len(self.thorough.rows), COLUMNS * ROWS)
        return torch.cat([shrink(read(self.thorough.rows[i])[side][None]) for i in shown])


def make_collapse_detector(job: Job, device: torch.device, folder: RunFolder,
                           embedding: Callable[[], Embedding],
                           log: Callable[[str], None]) -> CollapseDetector | None:
    """The detector of a job, or None if it is switched off or there is no D or too few images.

    A likelihood or a regression on noise has no such failure, and its early samples are all alike.
    """
    if job.train.on_collapse == "off" or not isinstance(job.recipe, Discriminates):
        return None
    dataset = job.splits["train"].for_evaluation(job.formats, job.crop_size)
    if isinstance(dataset, ImageDataset):
        noise = job.fixed_noise()
        quick, thorough = (FixedInputs.from_noise(dataset, noise, count, conditional=bool(job.classes))
                           for count in GENERATED_IMAGES)
    else:
        quick, thorough = (FixedInputs(dataset, evenly_spaced(len(dataset), count))
                           for count in TRANSLATED_IMAGES)
    if min(len(quick.rows), len(thorough.rows)) < MIN_IMAGES:
        return None
    return CollapseDetector(job, quick, thorough, folder, device, embedding, log)
