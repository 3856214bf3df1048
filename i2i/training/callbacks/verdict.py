"""What is said of a run at its end, from its logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from i2i.metrics.comparison import Evaluation, describe_progress

# Share of the way from "held-out reals look real" to "held-out reals look fake"; 0 is none, 1 is complete.
OVERFITTING = 0.5
ALIKE = 0.3         # Share of the real images' mean distance below which outputs count as alike.
FORGOTTEN = 0.5     # Share of the highest recall below which pictures that were once made are missing.


def overfitting(readings: Mapping[str, float]) -> float:
    """r_v = (E[D_train] - E[D_held-out]) / (E[D_train] - E[D_fake]): 0 none, 1 complete.  Karras et al.
    2020a, equation 1."""
    span = readings["real_logits_train"] - readings["fake_logits"]
    return (readings["real_logits_train"] - readings["real_logits_heldout"]) / span if span > 0 else 0.0


def warnings(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong at the last evaluation, each with its figures."""
    told = []
    if entries:
        readings = entries[-1]["readings"]
        if "real_logits_heldout" in readings and (r := overfitting(readings)) > OVERFITTING:
            told.append(f"the discriminator overfits: held-out images look {r:.0%} of the way from real to "
                        "fake to it "
                        f"(logits {readings['real_logits_train']:.2f} on training, "
                        f"{readings['real_logits_heldout']:.2f} on held-out images); "
                        "more data, or a narrower discriminator (discriminator.width)")
        if readings["diversity"] < ALIKE * readings["diversity_real"]:
            told.append(f"the outputs look alike: their mean distance is {readings['diversity']:.3f}, "
                        f"that of real images {readings['diversity_real']:.3f}")
        told += forgotten(entries)
    return told


def forgotten(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether recall has fallen to half of what it was, outside both intervals."""
    judged = [(entry["images"], entry["scores"]["recall"]) for entry in entries
              if "recall" in entry.get("scores", {})]
    if not judged:
        return []
    (images, best), (_, last) = max(judged, key=lambda row: row[1]["value"]), judged[-1]
    if last["value"] >= FORGOTTEN * best["value"] or last["high"] >= best["low"]:
        return []
    return [f"part of the real images is no longer made: recall was {best['value']:.2f} at image {images:,} "
            f"and is {last['value']:.2f} "
            f"(at most {last['high']:.2f}, 95 % interval)"]


def conclude(entries: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """The verdict on a run from the lines of its metrics.jsonl.  -> verdict.json"""
    if not entries:
        return {"sentence": "not judged: there were no images to judge it by", "warnings": []}
    history = [Evaluation(entry["images"], entry["each"]) for entry in entries
               if len(entry["each"]) == len(entries[-1]["each"])]
    best = min(entries, key=lambda entry: entry["scores"][metric]["value"])
    return {"sentence": describe_progress(history, metric), "warnings": warnings(entries),
            "best": {"images": best["images"], "metric": metric, "value": best["scores"][metric]["value"]}}
