"""The verdict on a finished run, from its logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from i2i.errors import JobError
from i2i.files import write_atomically
from i2i.metrics.intervals import Evaluation, describe_progress
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.training.callbacks.collapse_detector import CollapseDetector
from i2i.training.callbacks.evaluator import MAX_IMAGES, Evaluator
from i2i.training.callbacks.fixed_inputs import evenly_spaced_inputs
from i2i.training.callbacks.loss_balance import loss_warnings
from i2i.training.job import Job
from i2i.training.trainer import Trainer

MAX_OVERFITTING = 0.5       # Of `overfitting`: 0 is none, 1 is complete.
MIN_DIVERSITY_RATIO = 0.3   # Mean distance of outputs over that of real images.
MIN_RECALL_RATIO = 0.5      # Last recall over the highest.


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
    history = [Evaluation(entry["images"], entry["each"]) for entry in entries
               if len(entry["each"]) == len(entries[-1]["each"])]
    best = min(entries, key=lambda entry: entry["scores"][metric]["value"])
    return {"sentence": describe_progress(history, metric), "warnings": warnings(entries),
            "best": {"images": best["images"], "metric": metric, "value": best["scores"][metric]["value"]}}


def write_verdict(job: Job, folder: RunFolder, evaluator: Evaluator | None, detector: CollapseDetector | None,
                  trainer: Trainer) -> None:
    """Write verdict.json, and the best and worst pairs of the test split, or of the validation split."""
    if evaluator and evaluator.is_paired:
        test = job.held_out_pairs("test")
        pairs = evaluator.heldout
        if test is not None:
            pairs = evenly_spaced_inputs(test.for_evaluation(job.formats, job.crop_size), MAX_IMAGES)
        folder.write_json("pairs.json", evaluator.save_best_and_worst(
            trainer.ema_modules, pairs, lambda name, write: write_atomically(folder.path / name, write)))
    entries = log.read(folder.metrics)
    if evaluator and not entries:
        entries = [evaluator(trainer.modules, trainer.ema_modules, trainer.images)]
    try:
        verdict = conclude(entries, evaluator.metric if evaluator else "")
        losses, problems = loss_warnings(log.read(folder.log), job.recipe)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise JobError(f"{folder.metrics} or {folder.log.name} has lines that no run writes "
                       f"({type(error).__name__}: {error})") from None
    detection = detector.detection if detector else None
    collapse = [detection["sentence"]] if detection else []
    verdict |= {"warnings": [*collapse, *verdict["warnings"], *problems], "losses": losses}
    folder.write_json(folder.verdict.name, verdict)
    for warning in verdict["warnings"]:
        trainer.callback.on_message(f"warning: {warning}")
    trainer.callback.on_message(verdict["sentence"])
