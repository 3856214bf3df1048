"""What an evaluation during training is: the generator on fixed inputs, and the discriminator's logits."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from i2i.data.labeled import ImageDataset
from i2i.data.sampler import evenly_spaced
from i2i.images.convert import make_grid, to_levels
from i2i.metrics import collapse, kid, paired
from i2i.metrics.set_metrics import MetricContext, Score, frechet_score, manifold_scores, mean_score
from i2i.recipes.base import Discriminates, Recipe
from i2i.recipes.discriminator_outputs import average_logits
from i2i.training.callbacks.fixed_inputs import QUICK_SIZE, Embedding, FixedInputs, thumbnails
from i2i.training.job import AnyDataset, Job

Matrix = NDArray[Any]
MAX_IMAGES = 256        # Of each set: EfficientNet's features of them take about 12 s on one CPU core.
MIN_IMAGES = 5          # Of each set, so that each has three neighbors and a covariance.
SHOWN_PAIRS = 6         # Best and worst pairs that are saved as images.


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the averaged generator of a run, and D if there is one, on the same inputs each time.

    Translators are compared with the targets of held-out pairs, in 8-bit levels at the training size; L1
    decides which evaluation is the best.  Generators from noise are compared with real images as sets; KID
    decides, as it is unbiased at a few hundred images, where the Fréchet distance is far too large (Chong
    and Forsyth 2020) and only fit to be compared within a run.

    Args:
        heldout: samples of the validation split; the same object as `training` if there are none.
        training: training samples, which D's logits on held-out ones are compared with.
        test: test samples, by which nothing is picked: the finished model is shown on them, and where there
            is no validation split D's logits on them show whether it overfits.
        embedding: gives the space in which diversity, and sets, are measured.
        limit: the most samples of a set.
    """

    recipe: Recipe
    heldout: FixedInputs
    training: FixedInputs
    device: torch.device
    embedding: Callable[[], Embedding]
    test: FixedInputs | None = None
    limit: int = MAX_IMAGES

    @property
    def is_paired(self) -> bool:
        """Whether outputs have targets."""
        return bool(self.recipe.sources)

    def limited(self, count: int) -> "Evaluator":
        """The evaluator of at most `count` inputs."""
        heldout = self.heldout.limited(count)
        training = heldout if self.training is self.heldout else self.training.limited(count)
        return replace(self, heldout=heldout, training=training, limit=min(count, self.limit),
                       test=self.test and self.test.limited(count))

    @property
    def metric(self) -> str:
        """The score, lower is better, that decides which evaluation is the best."""
        return "l1" if self.is_paired else f"kid_{self.embedding().name}"

    @torch.no_grad()
    def __call__(self, live: nn.ModuleDict, averaged: nn.ModuleDict, images: int) -> dict[str, Any]:
        """A line of metrics.jsonl; `each` has one value per image, whose mean is the deciding score.

        Puts the modules into eval mode.
        """
        live.eval()
        averaged.eval()
        embedding = self.embedding()
        real, _ = self.heldout.real_points(embedding, "b")
        points: list[Matrix] = []
        pair_values: dict[str, list[float]] = defaultdict(list)
        logits: dict[str, list[Tensor]] = defaultdict(list)
        for _, batch in self.heldout.batches(self.device):
            fake = self._generate(averaged, batch)
            points.append(embedding.embed(fake))
            if isinstance(self.recipe, Discriminates):
                logits["real_logits_heldout"].append(_logits(self.recipe, live, batch))
                logits["fake_logits"].append(_logits(self.recipe, live, batch | {"b": fake}))
            for name, values in pair_metrics(fake, batch["b"]).items() if self.is_paired else ():
                pair_values[name] += values
        if isinstance(self.recipe, Discriminates):
            others = {"real_logits_train": self.training}
            if self.heldout is self.training:
                logits["real_logits_train"] = logits.pop("real_logits_heldout")
                others = {"real_logits_heldout": self.test} if self.test else {}
            for name, samples in others.items():
                logits[name] = [_logits(self.recipe, live, batch)
                                for _, batch in samples.batches(self.device)]
        readings = {name: float(torch.cat(parts).mean()) for name, parts in logits.items()}
        generated = np.concatenate(points)
        readings["diversity"] = collapse.mean_distance(generated)
        readings["diversity_real"] = collapse.mean_distance(real)
        if self.is_paired:
            each: Sequence[float] = pair_values["l1"]
            scores = {name: mean_score(values) for name, values in pair_values.items()}
        else:
            labels = self.heldout.labels
            fake_labels = labels if self.heldout.conditional else None
            ratios = collapse.collapse_ratios(generated, real, fake_labels, labels)
            readings |= {f"{name}_to_real": value for name, value in ratios.items() if name != "diversity"}
            each, scores = set_metrics(generated, real, embedding.name)
        return {"images": images, "split": self.heldout.dataset.split, "n": len(generated),
                "scores": scores_as_json(scores), "readings": readings,
                "each": [round(value, 6) for value in each]}

    def _generate(self, modules: nn.ModuleDict, batch: dict[str, Tensor]) -> Tensor:
        inputs = {key: value for key, value in batch.items() if key != "b"}
        return self.recipe.generate(modules, inputs)["fake_b"].float()

    @torch.no_grad()
    def save_best_and_worst(self, averaged: nn.ModuleDict, pairs: FixedInputs,
                            write: Callable[[str, Callable[[Path], None]], None]) -> dict[str, Any]:
        """Save strips (input, output, target) of the best and worst pairs; returns the data of pairs.json."""
        averaged.eval()
        results, values = [], defaultdict[str, list[float]](list)
        for rows, batch in pairs.batches(self.device):
            fake = self._generate(averaged, batch)
            for name, found in (metrics := pair_metrics(fake, batch["b"])).items():
                values[name] += found
            for i, value in enumerate(metrics["l1"]):
                strip = make_grid([[batch["a"][i], fake[i], batch["b"][i]]], gap=0)
                results.append((value, pairs.indices[rows[i]], strip))
        results.sort(key=lambda result: result[:2])
        count = min(SHOWN_PAIRS, (len(results) + 1) // 2)
        scores = scores_as_json({name: mean_score(each) for name, each in values.items()})
        summary: dict[str, Any] = {"metric": self.metric, "split": pairs.dataset.split, "n": len(results),
                                   "scores": scores, "best": [], "worst": []}
        for name, chosen in (("best", results[:count]), ("worst", results[::-1][:count])):
            for rank, (value, index, strip) in enumerate(chosen, 1):
                file, image = f"pairs/{name}-{rank}.png", Image.fromarray(strip)
                write(file, lambda path, image=image: image.save(path, "png"))  # type: ignore[misc]
                summary[name].append({"name": pairs.dataset.name(index), "value": round(value, 4),
                                      "file": file})
        return summary


def _logits(recipe: Discriminates, live: nn.ModuleDict, batch: dict[str, Tensor]) -> Tensor:
    return average_logits(recipe.discriminate(live, batch)).float().flatten()


def scores_as_json(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Scores with their intervals, as JSON data."""
    return {name: {"value": score.value, "low": score.low, "high": score.high}
            for name, score in scores.items()}


def format_scores(entry: Mapping[str, Any]) -> str:
    """The scores of an evaluation in one line."""
    scores = "  ".join(f"{name} {score['value']:.4g}" for name, score in entry["scores"].items())
    return f"{entry['split']} at {entry['images']:,} images: {scores}"


def pair_metrics(fake: Tensor, real: Tensor) -> dict[str, list[float]]:
    """L1, PSNR and, if they are large enough, SSIM of images (N, C, H, W) in [-1, 1] in 8-bit levels."""
    fake, real = to_levels(fake), to_levels(real)
    values = {"l1": paired.l1(fake, real), "psnr": paired.psnr(fake, real, data_range=255)}
    if min(fake.shape[-2:]) >= paired.WINDOW_SIZE:
        values["ssim"] = paired.ssim(fake, real, data_range=255)
    return {name: each.tolist() for name, each in values.items()}


def set_metrics(fake: Matrix, real: Matrix, features: str) -> tuple[list[float], dict[str, Score]]:
    """KID by image, and KID, Fréchet distance, precision and recall of features (N, D) and (M, D)."""
    n = min(len(fake), len(real))
    each = kid_by_image(fake[:n], real[:n]).tolist()
    context = MetricContext(features)
    scores = {f"kid_{features}": mean_score(each), f"fd_{features}": frechet_score(fake, real, context)}
    return each, scores | manifold_scores(fake, real, context, 3, ("precision", "recall"))


def kid_by_image(fake: Matrix, real: Matrix) -> Matrix:
    """Values whose mean is the KID of (N, D) and (N, D) features, and whose scatter gives its standard error.

    The unbiased squared MMD (Gretton et al. 2012, equation 4; Binkowski et al. 2018) is a U-statistic: with
    u_i the term of pair (x_i, y_i), its standard error is 2 sd(u) / √n (Hoeffding 1948), which is that of
    the mean of the values m + 2 (u_i - m).
    """
    table = kid.kernel(fake, fake) + kid.kernel(real, real) - kid.kernel(fake, real) - kid.kernel(real, fake)
    np.fill_diagonal(table, 0)
    terms: Matrix = table.sum(1) / (len(fake) - 1)
    return terms.mean() + 2 * (terms - terms.mean())


def make_evaluator(job: Job, device: torch.device, embedding: Callable[[], Embedding]) -> Evaluator | None:
    """The evaluator of a job, or None if there are no pairs to compare with or too few images."""
    from_noise = isinstance(job.splits["train"], ImageDataset)
    noise = job.fixed_noise() if from_noise else None

    def fixed(split: AnyDataset | None) -> FixedInputs | None:
        if split is None:
            return None
        dataset = split.for_evaluation(job.formats, job.crop_size)
        if noise and isinstance(dataset, ImageDataset):
            return FixedInputs.from_noise(dataset, noise, MAX_IMAGES, conditional=bool(job.classes))
        return FixedInputs(dataset, evenly_spaced(len(dataset), MAX_IMAGES))

    own = fixed(job.splits["train"])
    val, test = (fixed(job.splits.get(name) if from_noise else job.held_out_pairs(name))
                 for name in ("val", "test"))
    heldout = val or (own if from_noise else None)
    if not own or not heldout or (from_noise and min(len(heldout.rows), len(own.rows)) < MIN_IMAGES):
        return None
    if from_noise and test and len(test.rows) < MIN_IMAGES:
        test = None
    return Evaluator(job.recipe, heldout, own, device,
                     embedding if from_noise else lambda: thumbnails(QUICK_SIZE), test)
