"""Judges images from noise: a few hundred generated pictures against as many real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from i2i.metrics import collapse, frechet, kid, precision_recall
from i2i.metrics.intervals import mean_interval
from i2i.recipes.base import Recipe
from i2i.training.callbacks.embedding import Embedding
from i2i.training.callbacks.fixed_inputs import BATCH, FixedInputs

Matrix = NDArray[Any]
# Pictures of either side: their features take about twelve seconds on one CPU core (48 ms each).
MAX_IMAGES = 256
MIN_IMAGES = 5          # Of either side, so that each has three neighbors and a covariance.
ROUNDS = 20         # Bootstrap samples.


def kernel_distance(fake: Matrix, real: Matrix) -> Matrix:
    """KID, as numbers whose mean it is and whose scatter is its error.  N×D, N×D -> N

    The unbiased squared MMD (Gretton et al. 2012, equation 4, as Binkowski et al. 2018) is a U-statistic:
    with u_i the part of pair (x_i, y_i), its standard error is 2 sd(u) / √n (Hoeffding 1948), so the numbers
    m + 2 (u_i - m) stand for it wherever means of images are compared.
    """
    n = len(fake)
    table = kid.kernel(fake, fake) + kid.kernel(real, real) - kid.kernel(fake, real) - kid.kernel(real, fake)
    np.fill_diagonal(table, 0)
    parts: Matrix = table.sum(1) / (n - 1)
    return parts.mean() + 2 * (parts - parts.mean())


class Mean:
    """A running mean of all numbers of tensors."""

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def add(self, values: Tensor) -> None:
        """Count these too."""
        self.sum, self.count = self.sum + float(values.sum()), self.count + values.numel()

    @property
    def mean(self) -> float:
        """Of all that were added."""
        return self.sum / self.count


@dataclass(frozen=True)
class NoiseEvaluator:
    """The averaged generator on fixed noise against real pictures of `split`, and D on training, held-out and
    generated pictures.

    KID decides which evaluation is the best: at a few hundred pictures it is unbiased, the Fréchet distance
    is far too large (Chong and Forsyth 2020) and only fit to be compared with itself.
    """

    recipe: Recipe
    probe: FixedInputs                    # Whose real pictures are held out where there are any,
    training: FixedInputs                 # and those that are learned from.
    split: str
    device: torch.device
    look: Callable[[], Embedding]

    @property
    def metric(self) -> str:
        """The figure that decides."""
        return f"kid_{self.look().name}"

    @torch.no_grad()
    def __call__(self, live: nn.ModuleDict, averaged: nn.ModuleDict, images: int) -> dict[str, Any]:
        """One line of metrics.jsonl.  Leaves the modules in eval mode."""
        live.eval()
        look = self.look()
        real, _, classes = self.probe.real_points(look, "b")
        points, judged = [], Mean()
        told = "c" in self.recipe.required_keys
        for i, made in enumerate(self.probe.made(self.recipe, averaged, self.device)):
            image = made["fake_b"]
            points.append(look.take(image))
            judged.add(self._logits(live, image, self.probe.classes if told else None, i * BATCH))
        fake = np.concatenate(points)
        n = min(len(fake), len(real))
        each = kernel_distance(fake[:n], real[:n])
        low, high = mean_interval(each.tolist())
        scores = {self.metric: {"value": float(each.mean()), "low": low, "high": high}} | self._others(fake,
                                                                                                       real,
                                                                                                       look.name)
        shares = collapse.collapse_ratios(fake, real, classes if told else None, classes)
        readings = {"real_logits_train": self._real_logits(live, self.training), "fake_logits": judged.mean,
                    **({"real_logits_heldout": self._real_logits(live, self.probe)} if self.split != "train"
                       else {}),
                    "diversity": collapse.mean_distance(fake), "diversity_real": collapse.mean_distance(real),
                    **{f"{name}_to_real": value for name, value in shares.items() if name != "diversity"}}
        return {"images": images, "split": self.split, "n": len(fake), "scores": scores, "readings": readings,
                "each": [round(value, 6) for value in each.tolist()]}

    def _others(self, fake: Matrix, real: Matrix, name: str) -> dict[str, dict[str, float | None]]:
        """Fréchet distance, precision and recall, with bootstrap intervals where these mean something."""
        error = frechet.standard_error(fake, real, seed=0, rounds=ROUNDS // 4)
        value = max(0.0, frechet.frechet_from_features(fake, real))
        out: dict[str, dict[str, float | None]] = {
            f"fd_{name}": {"value": value, "low": max(0.0, value - 1.96 * error),
                           "high": value + 1.96 * error}}
        manifold = precision_recall.manifold(fake, real, k=3)
        values, rounds = manifold.scores(), manifold.bootstrap(seed=0, rounds=ROUNDS)
        for score in ("precision", "recall"):
            half = 1.96 * float(np.std(rounds[score], ddof=1))
            out[score] = {"value": values[score], "low": max(0.0, values[score] - half),
                          "high": min(1.0, values[score] + half)}
        return out

    def _real_logits(self, live: nn.ModuleDict, probe: FixedInputs) -> float:
        judged = Mean()
        for i, batch in enumerate(probe.reals()):
            judged.add(self._logits(live, batch["b"], probe.classes if "c" in self.recipe.required_keys else None,
                                    i * BATCH))
        return judged.mean

    def _logits(self, live: nn.ModuleDict, images: Tensor, classes: Matrix | None, first: int) -> Tensor:
        """D's logits of these pictures, whose classes begin at row `first`."""
        batch = {"b": images.to(self.device)}
        if classes is not None:
            batch["c"] = torch.from_numpy(classes[first:first + len(images)]).to(self.device)
        return self.recipe.discriminate(live, batch).float()
