"""Judges a run on held-out pairs: metrics with intervals, and readings of D and of diversity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.data.dataset import Dataset
from i2i.data.sampler import evenly_spaced
from i2i.images.formats import grid
from i2i.metrics.intervals import mean_interval
from i2i.metrics.paired import l1, psnr, ssim
from i2i.recipes.base import Recipe

MAX_PAIRS = 256          # Held-out pairs that are looked at.
SHOWN_PAIRS = 6           # Best and worst pairs kept as pictures.
METRIC = "l1"       # Decides which evaluation is the best.


@dataclass(frozen=True)
class PairedEvaluator:
    """The averaged generator against held-out targets at the training size, in 8-bit levels; and D on
    training and held-out pairs."""

    recipe: Recipe
    training: Dataset
    heldout: Dataset
    device: torch.device
    batch: int = 16
    metric: ClassVar[str] = METRIC

    @torch.no_grad()
    def __call__(self, live: nn.ModuleDict, averaged: nn.ModuleDict, images: int) -> dict[str, Any]:
        """One line of metrics.jsonl.  Leaves the modules in eval mode."""
        live.eval()
        averaged.eval()
        values: dict[str, list[float]] = {"l1": [], "psnr": [], "ssim": []}
        logits: dict[str, list[float]] = {"heldout": [], "fake": [], "train": []}
        small: dict[str, list[Tensor]] = {"fake": [], "real": []}
        for _, batch in self.batches(self.heldout):
            fake = self.generate(averaged, batch)
            levels, target = to_levels(fake), to_levels(batch["b"])
            values["l1"] += l1(levels, target).tolist()
            values["psnr"] += psnr(levels, target, data_range=255).tolist()
            if min(fake.shape[-2:]) >= 11:
                values["ssim"] += ssim(levels, target, data_range=255).tolist()
            logits["heldout"].append(self.recipe.discriminate(live, batch).float().mean().item())
            logits["fake"].append(self.recipe.discriminate(live, {**batch, "b": fake}).float().mean().item())
            small["fake"].append(F.adaptive_avg_pool2d(fake, 8).flatten(1))
            small["real"].append(F.adaptive_avg_pool2d(batch["b"], 8).flatten(1))
        for _, batch in self.batches(self.training):
            logits["train"].append(self.recipe.discriminate(live, batch).float().mean().item())
        scores = {name: _score(each) for name, each in values.items() if each}
        readings = {"real_logits_train": float(np.mean(logits["train"])),
                    "real_logits_heldout": float(np.mean(logits["heldout"])),
                    "fake_logits": float(np.mean(logits["fake"])),
                    "diversity": spread(torch.cat(small["fake"])),
                    "diversity_real": spread(torch.cat(small["real"]))}
        return {"images": images, "split": self.heldout.split, "n": len(values["l1"]), "scores": scores,
                "readings": readings,
                "each": [round(value, 4) for value in values[METRIC]]}

    def generate(self, modules: nn.ModuleDict, batch: dict[str, Tensor]) -> Tensor:
        """The translation of batch["a"].  -> NCHW"""
        return next(iter(self.recipe.generate(modules, batch).values())).float()

    def batches(self, pairs: Dataset) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Up to 256 pairs spread over a split, whole at the training size, with their numbers; unreadable
        ones are left out."""
        chosen = evenly_spaced(len(pairs), MAX_PAIRS)
        for first in range(0, len(chosen), self.batch):
            numbers, batch = pairs.batch(chosen[first:first + self.batch])
            if numbers:
                yield numbers, {key: image.to(self.device) for key, image in batch.items()}

    @torch.no_grad()
    def extremes(self, averaged: nn.ModuleDict, pairs: Dataset,
                 write: Callable[[str, Callable[[Path], None]], None]) -> dict[str, Any]:
        """Write the best and worst pairs as input, output, target strips and tell which they are.  ->
        pairs.json"""
        averaged.eval()
        scored = []
        for numbers, batch in self.batches(pairs):
            fake = self.generate(averaged, batch)
            for i, value in enumerate(l1(to_levels(fake), to_levels(batch["b"])).tolist()):
                scored.append((value, numbers[i], grid([[batch["a"][i], fake[i], batch["b"][i]]], gap=0)))
        scored.sort(key=lambda row: row[:2])
        count = min(SHOWN_PAIRS, (len(scored) + 1) // 2)
        told: dict[str, Any] = {"metric": METRIC, "split": pairs.split}
        for name, rows in (("best", scored[:count]), ("worst", scored[len(scored) - count:][::-1])):
            told[name] = []
            for place, (value, index, strip) in enumerate(rows, 1):
                file = f"pairs/{name}-{place}.png"
                write(file, lambda path,
                      strip=strip: Image.fromarray(strip).save(path, "png"))  # type: ignore[misc]
                told[name].append({"name": pairs.name(index), "value": round(value, 4), "file": file})
        return told


def _score(values: Sequence[float]) -> dict[str, float | None]:
    low, high = mean_interval(values)
    return {"value": float(np.mean(values)), "low": low, "high": high}


def to_levels(images: Tensor) -> Tensor:
    """Levels 0 … 255 of the range, whole ones: as 8-bit images would be saved, and so that figures of all
    kinds of image have one scale."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255)


def spread(flat: Tensor) -> float:
    """Mean distance between two different images, root mean square over values.  N x D -> float"""
    n = len(flat)
    if n < 2:
        return 0.0
    return float(torch.pdist(flat.float()).mean() / flat.shape[1] ** 0.5)
