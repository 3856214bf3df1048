"""The collapse detector: when it reports, when it does not, what it costs.

python bench/collapse.py collapse [SEEDS] [SEEDS WITH FEATURES]
python bench/collapse.py trained RECIPE SEED [SEED ...]
python bench/collapse.py cost

`collapse`: generators that return real images, for 30 checks: ten while images fade in from gray, ten
healthy ones, ten after the collapse.  `modes`: so many images are left, in a share of the outputs; `moved`:
shifted by a pixel of 32 each time; `spread`: all are drawn to their mean until so much is left of their
distances; `inter`: one image for all classes; `intra`: one for each, of a conditional generator.  Features
take 6 s of a core for a check, so few runs have them.
`trained`: small generators that are really trained.
`cost`: the detector's share of a run's CPU time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.training import job as jobs
from i2i.training import train as training
from i2i.training.callbacks.base import Callback, CallbackList
from i2i.training.callbacks.checkpoint import SampleGrid, StateSaver
from i2i.training.callbacks.collapse_detector import CollapseDetector
from i2i.training.callbacks.diagnosis import loss_warnings
from i2i.training.callbacks.fixed_inputs import THUMBNAIL_SIZE, Embedding, best_embedding, thumbnails
from i2i.training.distributed import Runtime
from i2i.training.job import Job
from i2i.training.trainer import Trainer

RunLines = list[dict[str, Any]]
CHECKS, FADE_IN, COLLAPSE_AT = 30, 10, 20
SIZE = 32           # Pixels per side.
DATA = {"dcgan": "fluent3d-64", "cgan": "fluent3d-64", "pix2pix": "openmoji-64"}        # By recipe.
SETTINGS = [("healthy", 0, 0.0), *(("modes", modes, 1.0) for modes in (1, 8, 32, 64, 128)),
            *(("moved", modes, 1.0) for modes in (8, 32, 64)),
            *(("modes", 8, share) for share in (0.9, 0.8, 0.7, 0.5)),
            *(("spread", 0, left) for left in (0.6, 0.5, 0.4, 0.3, 0.2)),
            ("inter", 1, 1.0), ("inter", 1, 0.8), ("intra", 1, 1.0), ("intra", 1, 0.9), ("intra", 1, 0.8)]
LABELS = {"healthy": "none", "modes": "images left: {modes}", "moved": "images left: {modes}, shifted",
         "spread": "all drawn to their mean"}
TINY = ("data.size=32", "generator.width=8", "discriminator.width=8", "train.batch_size=8",
        "train.images=18k", "train.collapse_every=500", "train.checkpoint_every=1m",
        "train.log_every=300", "train.ema_half_life=0")
COSTS = (("dcgan", "data.size=32", "generator.width=16", "discriminator.width=16", "train.images=2k"),
         ("dcgan", "train.images=2k"),
         ("pix2pix", "generator.width=16", "discriminator.width=16", "train.images=1k"))


class CollapsingGenerator(nn.Module):
    """Returns images of the data set, and collapses at check COLLAPSE_AT."""

    def __init__(self, bank: Tensor, labels: np.ndarray, kind: str, modes: int, share: float,
                 seed: int) -> None:
        super().__init__()
        self.bank, self.mean, self.kind, self.share, self.check = bank, bank.mean(0), kind, share, 0
        self.draw = np.random.default_rng(seed)
        self.left = self.draw.choice(len(bank), modes or 1, replace=False)
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.chosen = [int(self.draw.choice(rows)) for rows in self.members]

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Noise (N, 100) and classes (N,) to images."""
        images = torch.stack([self._one(None if c is None else int(c[i])) for i in range(len(z))])
        return (images + 0.02 * torch.randn(images.shape)) * min(1.0, self.check / FADE_IN)

    def _one(self, label: int | None) -> Tensor:
        row = int(self.draw.choice(np.arange(len(self.bank)) if label is None else self.members[label]))
        image = torch.roll(self.bank[row], tuple(self.draw.integers(-1, 2, 2)), (1, 2))
        if self.check < COLLAPSE_AT or self.kind == "healthy":
            return image
        if self.kind == "spread":
            return self.mean + self.share * (image - self.mean)
        if self.draw.random() >= self.share:
            return image
        any_left = int(self.draw.choice(self.left))
        index = {"intra": self.chosen[label or 0], "inter": int(self.left[0])}.get(self.kind, any_left)
        left = self.bank[index]
        return torch.roll(left, tuple(self.draw.integers(-1, 2, 2)), (1, 2)) if self.kind == "moved" else left


def simulate(kind: str, modes: int, share: float, seeds: int,
             embedding: Embedding) -> tuple[list[int | None], list[str]]:
    """When the collapse was reported in each run, in checks after it began, and as what kind."""
    recipe = "cgan" if kind in ("inter", "intra") else "dcgan"
    job, bank, labels, first = prepared(recipe, embedding)
    delays: list[int | None] = []
    kinds: list[str] = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(seed)
            detector = make_detector(job, RunFolder(folder), embedding)
            # Real images are embedded once.
            detector.quick, detector.thorough, detector.advise = first.quick, first.thorough, lambda kind: []
            G = CollapsingGenerator(bank, labels, kind, modes, share, seed)
            for step in range(CHECKS):
                G.check = step
                detector(nn.ModuleDict({"Z": nn.Identity(), "G": G}), 1000 * (step + 1))
            entries = log.read(Path(folder) / "collapse.jsonl")
            found = [entry["detection"] for entry in entries if "detection" in entry]
            delays.append(found[0]["images"] // 1000 - COLLAPSE_AT if found else None)
            kinds += [found[0]["kind"]] if found else []
    return delays, kinds


@cache
def prepared(recipe: str, embedding: Embedding) -> tuple[Job, Tensor, np.ndarray, CollapseDetector]:
    """A job, all images of its data, their classes, and a detector that has embedded them."""
    job = jobs.prepare(recipe, (f"data.size={SIZE}", "train.images=1000"), data=DATA[recipe])
    split = job.splits["train"]
    bank = split.for_evaluation(job.formats, job.crop_size).batch(range(len(split)))[1]["b"]
    detector = make_detector(job, RunFolder(tempfile.gettempdir()), embedding)
    return job, bank, np.asarray(split.labels), detector      # type: ignore[union-attr]


def make_detector(job: Job, folder: RunFolder, embedding: Embedding) -> CollapseDetector:
    """The one that `i2i train` would make."""
    detector = training.make_collapse_detector(job, torch.device("cpu"), folder, lambda: embedding,
                                               lambda line: None)
    assert detector is not None
    return detector


def collapse(seeds: int = 5, with_features: int = 1) -> None:
    """One line for each setting."""
    features, small = best_embedding(torch.device("cpu"), print), thumbnails(THUMBNAIL_SIZE)
    print("| collapse | share | detected, thumbnails twice | detected, with features | checks until then "
          "| kind |\n|---|---|---|---|---|---|")
    for kind, modes, share in SETTINGS:
        quick, kinds = simulate(kind, modes, share, seeds, small)
        sure, sure_kinds = simulate(kind, modes, share, with_features, features)
        waited = [each for each in quick + sure if each is not None]
        span = f"{min(waited)} to {max(waited)}" if waited else "–"
        named = ", ".join(sorted(set(sure_kinds or kinds))) or "–"
        counts = [sum(each is not None for each in runs) for runs in (quick, sure)]
        what = LABELS.get(kind, kind).format(modes=modes)
        found = f"{counts[0]} of {seeds} | {counts[1]} of {with_features}"
        print(f"| {what} | {share:g} | {found} | {span} | {named} |", flush=True)


class Timed(Callback):
    """A collapse detector that counts its CPU time."""

    def __init__(self, detector: CollapseDetector) -> None:
        self.detector, self.seconds = detector, 0.0

    def on_step(self, trainer: Trainer, logs: Mapping[str, float] | None) -> None:
        start = time.process_time()
        self.detector.on_step(trainer, logs)
        self.seconds += time.process_time() - start


def run(job: Job, embedding: Embedding) -> tuple[RunLines, RunLines, float, float]:
    """Train without evaluation: lines of collapse.jsonl and log.jsonl, CPU seconds, those in the detector."""
    with tempfile.TemporaryDirectory() as place:
        runtime, folder = Runtime(device="cpu", threads=1), RunFolder(Path(place) / "run")
        folder.create(job.config())
        detector = Timed(make_detector(job, folder, embedding))
        callbacks = CallbackList([detector, SampleGrid(training.fixed_samples(job)), StateSaver()])
        trainer = Trainer(job.recipe, job.info, job.train, runtime, folder, job.header(), callbacks)
        start = time.process_time()
        trainer.run(lambda position: training.job_batches(job, runtime, position))
        seconds = time.process_time() - start
        return log.read(folder.collapse), log.read(folder.log), seconds, detector.seconds


def trained(recipe: str, *seeds: int) -> None:
    """One line for each seed: its last ratios, whether a collapse was reported, warnings about its losses."""
    features = best_embedding(torch.device("cpu"), print)
    print("| recipe | seed | diversity at the end | distinct | checks with features | detected | losses "
          "|\n|---|---|---|---|---|---|---|")
    for seed in seeds:
        job = jobs.prepare(recipe, (*TINY, f"train.seed={seed}"), data="fluent3d-64")
        entries, lines, _, _ = run(job, features)
        ratios = entries[-1]["fake_b"]
        thorough = sum("confirmed" in entry for entry in entries)
        detected = next((f"at {entry['images']:,}" for entry in entries if "detection" in entry), "no")
        losses = "; ".join(loss_warnings(lines, job.recipe)[1]) or "–"
        print(f"| {recipe} | {seed} | {ratios['diversity']:.2f} | {ratios['distinct']:.2f} | {thorough} | "
              f"{detected} | {losses} |", flush=True)


def cost() -> None:
    """The detector's share of the CPU time, with the first check, which reads the real images."""
    small = thumbnails(THUMBNAIL_SIZE)
    print("| run | checks | seconds in the detector | of | share |\n|---|---|---|---|---|")
    for recipe, *settings in COSTS:
        job = jobs.prepare(recipe, ("train.checkpoint_every=1m", *settings), data=DATA[recipe])
        entries, _, seconds, checking = run(job, small)
        print(f"| `{recipe} {' '.join(settings)}` | {len(entries)} | {checking:.1f} | {seconds:.1f} | "
              f"{100 * checking / seconds:.1f} % |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"collapse": collapse, "trained": trained,
     "cost": cost}[sys.argv[1]](*(int(word) if word.isdecimal() else word for word in sys.argv[2:]))
