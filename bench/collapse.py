"""The alarm: when it rings, that it is silent, what it costs.

python bench/collapse.py collapse [SEEDS] [SEEDS WITH FEATURES]      generators that hand out real pictures,
and then fewer and fewer of them python bench/collapse.py trained RECIPE SEED [SEED ...]              small
generators that are really trained python bench/collapse.py cost                                        the
looks' share of a run's time

`collapse`: 30 looks, ten in which pictures come out of the gray, ten healthy ones, ten after the collapse.
`modes`: so many pictures are left, of a share of those made; `moved`: by a pixel of 32 each time; `spread`:
all are drawn to their mean until so much is left of their distance; `inter`: one picture for all classes;
`intra`: one for each class, of a generator that is told classes.  Features take 6 s of a core for a look, so
few runs have them.
"""

from __future__ import annotations

import sys
import tempfile
import time
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
from i2i.training.callbacks.collapse_detector import CollapseDetector
from i2i.training.callbacks.embedding import THUMBNAIL_SIZE, Embedding, best_embedding, thumbnails
from i2i.training.callbacks.loss_balance import loss_warnings
from i2i.training.distributed import Runtime
from i2i.training.job import Job
from i2i.training.trainer import Trainer

RunLines = list[dict[str, Any]]
LOOKS, GRAY, AT = 30, 10, 20
SIZE = 32           # Pixels a side.
SETTINGS = [("healthy", 0, 0.0), *(("modes", modes, 1.0) for modes in (1, 8, 32, 64, 128)),
            *(("moved", modes, 1.0) for modes in (8, 32, 64)),
            *(("modes", 8, share) for share in (0.9, 0.8, 0.7, 0.5)),
            *(("spread", 0, left) for left in (0.6, 0.5, 0.4, 0.3, 0.2)),
            ("inter", 1, 1.0), ("inter", 1, 0.8), ("intra", 1, 1.0), ("intra", 1, 0.9), ("intra", 1, 0.8)]
WORDS = {"healthy": "none", "modes": "pictures left: {modes}", "moved": "pictures left: {modes}, moved",
         "spread": "all drawn to their mean"}
TINY = ("data.size=32", "generator.width=8", "discriminator.width=8", "train.batch_size=8",
        "train.images=18k", "train.collapse_every=500", "train.checkpoint_every=1m",
        "train.log_every=300", "train.ema_half_life=0")
COSTS = (("dcgan", "data.size=32", "generator.width=16", "discriminator.width=16", "train.images=2k"),
         ("dcgan", "train.images=2k"),
         ("pix2pix", "generator.width=16", "discriminator.width=16", "train.images=1k"))


class Played(nn.Module):
    """z, class -> a picture of the data set."""

    def __init__(self, bank: Tensor, labels: np.ndarray, kind: str, modes: int, share: float,
                 seed: int) -> None:
        super().__init__()
        self.bank, self.mean, self.kind, self.share, self.look = bank, bank.mean(0), kind, share, 0
        self.draw = np.random.default_rng(seed)
        self.left = self.draw.choice(len(bank), modes or 1, replace=False)
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self.chosen = [int(self.draw.choice(rows)) for rows in self.members]

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """N×100[, N] -> N3HW"""
        made = torch.stack([self._one(None if c is None else int(c[i])) for i in range(len(z))])
        return (made + 0.02 * torch.randn(made.shape)) * min(1.0, self.look / GRAY)

    def _one(self, label: int | None) -> Tensor:
        row = int(self.draw.choice(np.arange(len(self.bank)) if label is None else self.members[label]))
        picture = torch.roll(self.bank[row], tuple(self.draw.integers(-1, 2, 2)), (1, 2))
        if self.look < AT or self.kind == "healthy":
            return picture
        if self.kind == "spread":
            return self.mean + self.share * (picture - self.mean)
        if self.draw.random() >= self.share:
            return picture
        left = self.bank[{"intra": self.chosen[label or 0], "inter": int(self.left[0])}.get(self.kind,
                                                                                            int(self.draw.choice(self.left)))]
        return torch.roll(left, tuple(self.draw.integers(-1, 2, 2)), (1, 2)) if self.kind == "moved" else left


def played(kind: str, modes: int, share: float, seeds: int, look: Embedding) -> tuple[list[int | None],
                                                                                      list[str]]:
    """When each run rang, in looks after the collapse, and as what kind."""
    recipe = "cgan" if kind in ("inter", "intra") else "dcgan"
    job, bank, labels, first = known(recipe, look)
    rang: list[int | None] = []
    kinds: list[str] = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(seed)
            alarm = alarm_of(job, RunFolder(folder), look)
            # Real pictures are looked at once.
            alarm.screen, alarm.probe, alarm.advise = first.screen, first.probe, lambda kind: []
            G = Played(bank, labels, kind, modes, share, seed)
            for step in range(LOOKS):
                G.look = step
                alarm(nn.ModuleDict({"Z": nn.Identity(), "G": G}), 1000 * (step + 1))
            found = [entry["rang"] for entry in log.read(Path(folder) / "collapse.jsonl") if "rang" in entry]
            rang.append(found[0]["images"] // 1000 - AT if found else None)
            kinds += [found[0]["kind"]] if found else []
    return rang, kinds


@cache
def known(recipe: str, look: Embedding) -> tuple[Job, Tensor, np.ndarray, CollapseDetector]:
    """A job, all pictures of its data at their size, their classes, and an alarm that keeps what it has seen
    of them."""
    job = jobs.prepare(recipe, (f"data.size={SIZE}", "train.images=1000"))
    split = job.splits["train"]
    bank = split.for_evaluation(job.formats, job.crop_size).batch(range(len(split)))[1]["b"]
    return job, bank, np.asarray(split.labels), alarm_of(job, RunFolder(tempfile.gettempdir()),
                                                         look)      # type: ignore[union-attr]


def alarm_of(job: Job, folder: RunFolder, look: Embedding) -> CollapseDetector:
    """The one that `i2i train` would set."""
    alarm = training.make_collapse_detector(job, Runtime(device="cpu"), folder, lambda: look,
                                            lambda line: None)
    assert alarm is not None
    return alarm


def collapse(seeds: int = 5, with_features: int = 1) -> None:
    """One line for each setting."""
    features, small = best_embedding(torch.device("cpu"), print), thumbnails(THUMBNAIL_SIZE)
    print("| collapse | share | rang, thumbnails twice | rang, with features | looks until then | kind "
          "|\n|---|---|---|---|---|---|")
    for kind, modes, share in SETTINGS:
        rang, kinds = played(kind, modes, share, seeds, small)
        sure, sure_kinds = played(kind, modes, share, with_features, features)
        waited = [each for each in rang + sure if each is not None]
        span = f"{min(waited)} to {max(waited)}" if waited else "–"
        named = ", ".join(sorted(set(sure_kinds or kinds))) or "–"
        counts = [sum(each is not None for each in runs) for runs in (rang, sure)]
        what, found = WORDS.get(kind,
                                kind).format(modes=modes), f"{counts[0]} of {seeds} | {counts[1]} of {with_features}"
        print(f"| {what} | {share:g} | {found} | {span} | {named} |", flush=True)


class Timed:
    """A guard that counts the seconds that the process computes in it."""

    def __init__(self, guard: CollapseDetector) -> None:
        self.guard, self.seconds = guard, 0.0

    def __call__(self, live: nn.ModuleDict, images: int) -> bool:
        """As the guard."""
        began = time.process_time()
        stop = self.guard(live, images)
        self.seconds += time.process_time() - began
        return stop


def run(job: Job, look: Embedding) -> tuple[RunLines, RunLines, float, float]:
    """Train without judging.  -> the lines of collapse.jsonl and of log.jsonl, seconds of the process, those
    of them in the alarm"""
    with tempfile.TemporaryDirectory() as place:
        runtime, folder = Runtime(device="cpu", threads=1), RunFolder(Path(place) / "run")
        folder.create(job.config())
        guard = Timed(alarm_of(job, folder, look))
        trainer = Trainer(job.recipe, job.info, job.train, runtime, folder, job.header(), stop_criterion=guard)
        sample, began = training.fixed_samples(job), time.process_time()
        trainer.run(lambda start: training.job_batches(job, runtime, start), sample)
        return log.read(folder.collapse), log.read(folder.log), time.process_time() - began, guard.seconds


def trained(recipe: str, *seeds: int) -> None:
    """One line for each seed: its last readings, whether it rang, and what the verdict would say of its
    losses."""
    features = best_embedding(torch.device("cpu"), print)
    print("| recipe | seed | diversity at the end | distinct | asked of features | rang | losses "
          "|\n|---|---|---|---|---|---|---|")
    for seed in seeds:
        job = jobs.prepare(recipe, (*TINY, f"train.seed={seed}"))
        entries, lines, _, _ = run(job, features)
        shares = entries[-1]["fake_b"]
        asked = sum("confirmed" in entry for entry in entries)
        rang = next((f"at {entry['images']:,}" for entry in entries if "rang" in entry), "no")
        losses = "; ".join(loss_warnings(lines, job.recipe)[1]) or "–"
        print(f"| {recipe} | {seed} | {shares['diversity']:.2f} | {shares['distinct']:.2f} | {asked} | "
              f"{rang} | {losses} |", flush=True)


def cost() -> None:
    """The alarm's share of the seconds that a process computes, the first look, which reads the real
    pictures, included."""
    small = thumbnails(THUMBNAIL_SIZE)
    print("| run | looks | seconds in the alarm | of | share |\n|---|---|---|---|---|")
    for recipe, *words in COSTS:
        entries, _, seconds, looking = run(jobs.prepare(recipe, ("train.checkpoint_every=1m", *words)), small)
        print(f"| `{recipe} {' '.join(words)}` | {len(entries)} | {looking:.1f} | {seconds:.1f} | "
              f"{100 * looking / seconds:.1f} % |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"collapse": collapse, "trained": trained,
     "cost": cost}[sys.argv[1]](*(int(word) if word.isdecimal() else word for word in sys.argv[2:]))
