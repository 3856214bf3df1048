"""Diagnosis of a finished run, from its logs: balance of the losses, overfitting, whether to train on.

At equilibrium D finds real and generated images equally likely to be real, and each loss has a known value:
log 2 for G and 2 log 2 for D with cross entropy (Goodfellow et al. 2014, theorem 1), 1/4 and 1/2 with least
squares (Mao et al. 2017), 0 and 2 with the hinge (Lim and Ye 2017), log 2 for both with paired logits
(Jolicoeur-Martineau 2019).  The constant of a Wasserstein critic is free, so there its estimate of the
distance, E D(real) - E D(fake), should not grow (Arjovsky et al. 2017, figure 3).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import scipy
import torch

from i2i.errors import JobError
from i2i.files import write_atomically
from i2i.metrics.intervals import describe_progress
from i2i.metrics.judges import describe_selection, second_judge
from i2i.metrics.set_metrics import slug
from i2i.recipes.base import Recipe
from i2i.registry import Spec, build
from i2i.runs import checkpoint, log
from i2i.runs.folder import RunFolder
from i2i.training.callbacks.collapse_detector import CollapseDetector
from i2i.training.callbacks.evaluation import evaluations
from i2i.training.callbacks.evaluator import Evaluator, format_scores
from i2i.training.callbacks.fixed_inputs import features_of
from i2i.training.job import Job
from i2i.training.trainer import Trainer

MAX_OVERFITTING = 0.5       # Of `overfitting`: 0 is none, 1 is complete.
MIN_DIVERSITY_RATIO = 0.3   # Mean distance of outputs over that of real images.
MIN_RECALL_RATIO = 0.5      # Last recall over the highest.
BLOCKS = 8              # Parts of the second half of a run; the first half is learning.
LINES_PER_BLOCK = 3
MIN_TAU = 0.6           # Kendall's tau of eight means that rise: 3 in 100 by chance (Kendall 1938).
MIN_GROWTH = 1.5        # Of the last mean over the first,
MIN_CHANGE = 0.5        # and in units of what one logit changes at equilibrium.
MAX_DISTANCE = 4.0      # In these units: D is certain of all generated images.
# Variance around the trend, last quarter over the third: above the 99th percentile of F with 6 lines or more.
MAX_VARIANCE_RATIO = 4.0


@dataclass(frozen=True)
class Balance:
    """The equilibrium of an adversarial loss.

    Args:
        gan: G's loss there, None if there is no such value.
        unit: how much it changes when the logits of generated images fall by one.
    """

    gan: float | None
    unit: float

    @classmethod
    def of(cls, adversarial: Spec) -> "Balance":
        """From the loss itself, so that label smoothing and new losses need no table."""
        loss = build("adversarial", adversarial)
        if loss.decision_boundary is None and not loss.relativistic:
            return cls(None, 1.0)
        logits = torch.full((2,), float(loss.decision_boundary or 0.0))   # Two: some use means.
        gan = float(loss.g(logits, logits)) + 0.0                   # Not -0.
        return cls(gan, abs(float(loss.g(logits - 1, logits)) - gan))


def distance_from_balance(entries: Sequence[Mapping[str, Any]], key: str, balance: Balance) -> list[float]:
    """The signed distance of a loss of G from its equilibrium in each line, or the critic's distance."""
    if balance.gan is None:
        side = key.removeprefix("gan")
        return [float(entry["real_logits" + side]) - float(entry["fake_logits" + side]) for entry in entries
                if "fake_logits" + side in entry]
    return [float(entry[key]) - balance.gan for entry in entries if key in entry]


def trend(means: Sequence[float]) -> float:
    """Kendall's tau with time, -1 to 1; 0 where all are equal.  Kendall 1938."""
    return float(np.nan_to_num(scipy.stats.kendalltau(range(len(means)), means, variant="b").statistic))


def deviations(values: Sequence[float]) -> tuple[float, float]:
    """Standard deviations around a linear trend, in the third and the last quarter of the values."""
    third, last = (float(np.std(scipy.signal.detrend(part), ddof=2))
                   for part in np.array_split(np.asarray(values[len(values) // 2:]), 2))
    return third, last


def loss_warnings(entries: Sequence[Mapping[str, Any]], recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """Check G's losses in log.jsonl for convergence: figures for verdict.json by loss, and warnings."""
    spec = getattr(recipe, "adversarial", None)
    if not isinstance(spec, Spec):
        return {}, []
    balance, figures, warnings = Balance.of(spec), dict[str, Any](), list[str]()
    keys = dict.fromkeys(key for entry in entries for key in entry)
    for key in (key for key in keys if key == "gan" or key.startswith("gan_")):
        values = distance_from_balance(entries, key, balance)
        if len(values) < 2 * BLOCKS * LINES_PER_BLOCK or not np.isfinite(values).all():
            continue
        blocks = np.array_split(np.asarray(values[len(values) // 2:]), BLOCKS)
        means = [abs(float(part.mean())) for part in blocks]
        swings = deviations(values)
        figures[key] = {"balance": balance.gan, "away": [round(means[0], 4), round(means[-1], 4)],
                        "rising": round(trend(means), 2), "swings": [round(each, 4) for each in swings]}
        if problem := _problem(key, spec.name, balance, means, swings):
            side, end = key.removeprefix("gan"), entries[-1]
            details = ", ".join(f"{name} {float(end[name + side]):.3g}"
                                for name in ("d", "real_logits", "fake_logits") if name + side in end)
            warnings.append(f"the losses do not converge: {problem}{details and f' (at the end {details})'}; "
                            "try a lower d_optimizer.lr, or a penalty")
    return figures, warnings


def _problem(key: str, loss: str, balance: Balance, means: Sequence[float],
             swings: tuple[float, float]) -> str:
    first, last = means[0], means[-1]
    has_balance = balance.gan is not None
    value = f"{balance.gan:.2f}, its value where {loss} players balance" if has_balance else ""
    subject = f"G's loss ({key})" if has_balance else "the critic's distance (real less fake logits)"
    unit = balance.unit if has_balance else max(first, 1e-9)
    if trend(means) >= MIN_TAU and last >= MIN_GROWTH * first and last - first >= MIN_CHANGE * unit:
        return (f"over the second half of the run {subject} went from {first:.3g} to {last:.3g}"
                + (f" away from {value}" if has_balance else ""))
    if has_balance and min(means) >= MAX_DISTANCE * unit:
        return (f"{subject} stayed {min(means):.3g} to {max(means):.3g} away from {value}, so D is certain "
                "of all generated images")
    before, after = swings
    if before > 0 and (after / before) ** 2 > MAX_VARIANCE_RATIO and after > MIN_CHANGE * unit:
        return f"the swings of {subject} grew from {before:.3g} to {after:.3g} in the last quarter of the run"
    return ""


def overfitting(readings: Mapping[str, float]) -> float:
    """r_v = (E[D_train] - E[D_held-out]) / (E[D_train] - E[D_fake]).  Karras et al. 2020a, equation 1."""
    span = readings["real_logits_train"] - readings["fake_logits"]
    return (readings["real_logits_train"] - readings["real_logits_heldout"]) / span if span > 0 else 0.0


def warnings(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Problems that the lines of metrics.jsonl show."""
    if not entries:
        return []
    found, readings = [], entries[-1]["readings"]
    if "real_logits_heldout" in readings and (ratio := overfitting(readings)) > MAX_OVERFITTING:
        found.append(f"the discriminator overfits: to it, held-out images are {ratio:.0%} of the way from "
                     f"real to fake (logits {readings['real_logits_train']:.2f} on training, "
                     f"{readings['real_logits_heldout']:.2f} on held-out images); use more data, or a "
                     "narrower discriminator (discriminator.width)")
    if readings["diversity"] < MIN_DIVERSITY_RATIO * readings["diversity_real"]:
        found.append(f"the outputs look alike: their mean distance is {readings['diversity']:.3f}, that of "
                     f"real images {readings['diversity_real']:.3f}")
    recalls = [(entry["images"], entry["scores"]["recall"]) for entry in entries
               if "recall" in entry["scores"]]
    if recalls:
        (images, best), (_, last) = max(recalls, key=lambda row: row[1]["value"]), recalls[-1]
        if last["value"] < MIN_RECALL_RATIO * best["value"] and last["high"] < best["low"]:
            found.append(f"part of the real images is no longer generated: recall was {best['value']:.2f} at "
                         f"image {images:,} and is {last['value']:.2f} (at most {last['high']:.2f}, 95 % "
                         "interval)")
    return found


def conclude(entries: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """The verdict by the lines of metrics.jsonl, for verdict.json."""
    if not entries:
        return {"sentence": "not evaluated: there were no images to compare with", "warnings": []}
    best = min(entries, key=lambda entry: entry["scores"][metric]["value"])
    return {"sentence": describe_progress(evaluations(entries), metric), "warnings": warnings(entries),
            "best": {"images": best["images"], "metric": metric, "value": best["scores"][metric]["value"]}}


def write_verdict(job: Job, folder: RunFolder, evaluator: Evaluator | None, detector: CollapseDetector | None,
                  trainer: Trainer) -> None:
    """Write verdict.json, and show the best model on the test split, or on the validation split."""
    entries = log.read(folder.metrics)
    if evaluator and not entries:
        entries = [evaluator(trainer.modules, trainer.ema_modules, trainer.images)]
    try:
        verdict = conclude(entries, evaluator.metric if evaluator else "")
        losses, problems = loss_warnings(log.read(folder.log), job.recipe)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise JobError(f"{folder.metrics} or {folder.log.name} has lines that no run writes "
                       f"({type(error).__name__}: {error})") from None
    collapse = [detector.detection["sentence"]] if detector and detector.detection else []
    verdict |= {"warnings": [*collapse, *verdict["warnings"], *problems], "losses": losses}
    if evaluator:
        with _best_weights(folder, trainer, verdict["best"]["images"]) as images:
            verdict["shown"] = shown = _show(job, folder, evaluator, trainer) | {"images": images}
        picked_on = evaluator.heldout.dataset.split if folder.best.exists() else ""
        shown["selection"] = describe_selection(shown["split"], picked_on, has_val="val" in job.splits)
        trainer.message(f"{format_scores(shown)}  ({shown['n']} images); {shown['selection']}")
    if reason := trainer.early_end:
        verdict["ended"] = {"images": trainer.images, "reason": reason}
    folder.write_json(folder.verdict.name, verdict)
    for warning in verdict["warnings"]:
        trainer.message(f"warning: {warning}")
    trainer.message(verdict["sentence"])


@contextmanager
def _best_weights(folder: RunFolder, trainer: Trainer, images: int) -> Iterator[int]:
    """Put the best model of the run into the averaged modules for a while, if it is another than the last."""
    modules = trainer.ema_modules
    if images == trainer.images or not folder.best.exists():
        yield trainer.images
        return
    last = {name: value.clone() for name, value in modules.state_dict().items()}
    tensors, header = checkpoint.load(folder.best, "model")
    modules.load_state_dict(tensors)
    try:
        yield header["images"]
    finally:
        modules.load_state_dict(last)


def _show(job: Job, folder: RunFolder, evaluator: Evaluator, trainer: Trainer) -> dict[str, Any]:
    """Scores on images by which nothing was picked; of sets by two feature networks that share nothing.

    Of pairs the best and the worst are saved, too.
    """
    inputs = evaluator.test or evaluator.heldout
    if evaluator.is_paired:
        pairs = evaluator.save_best_and_worst(
            trainer.ema_modules, inputs, lambda name, write: write_atomically(folder.path / name, write))
        folder.write_json("pairs.json", pairs)
        return {key: pairs[key] for key in ("split", "n", "scores")}
    shown = replace(evaluator, heldout=inputs)
    entry = shown(trainer.modules, trainer.ema_modules, trainer.images)
    trained_with = job.header().get("feature_networks", {})
    if second := second_judge(evaluator.embedding().name, trained_with):
        shown = replace(shown, embedding=cache(partial(features_of, second, evaluator.device)))
        scores = shown(trainer.modules, trainer.ema_modules, trainer.images)["scores"]
        entry["scores"] |= {name: score for name, score in scores.items() if slug(second) in name}
    return {key: entry[key] for key in ("split", "n", "scores")}
