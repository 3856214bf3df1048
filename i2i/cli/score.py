"""i2i score."""

from __future__ import annotations

import csv
import io
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from i2i.cli.options import NO_JSON, Device, Json, MaxPixels, Model, Plugins, argument, option, output_option
from i2i.cli.progress import ProgressBars
from i2i.errors import JobError, RequestError, printable

if TYPE_CHECKING:
    from i2i.inference.score import Scorer, SetScores

SHOWN = 5       # Images that are named with their scores.


def score(
    model: Model,
    images: Annotated[str, argument("IMAGES", "A folder, zip or URL of images.")],
    anomalies: Annotated[str | None, option(
        "DIR|ZIP", "Images that should score higher: how often they do is printed (AUROC).")] = None,
    heatmaps: Annotated[str | None, option(
        "DIR", "Write original, reconstruction and difference of each image; of models that "
               "reconstruct.")] = None,
    json_output: Json = NO_JSON,
    csv_file: Annotated[str | None, output_option("FILE|URL", "Write a row for each image.", "--csv")] = None,
    seed: Annotated[int, option(None, "Of the noise in a score.", min=0)] = 0,
    max_pixels: MaxPixels = None, device: Device = "auto", plugin: Plugins = None,
) -> None:
    """Score images by how unlikely they are to a model: bits per dimension, or its discriminator's logits."""
    from i2i.data.sources import check_local
    from i2i.files import check_file, write_text
    from i2i.inference.model import load
    from i2i.inference.score import make_scorer, score_set
    check_local("--heatmaps", heatmaps)
    check_file("--csv", csv_file)
    if heatmaps is not None and Path(heatmaps).is_file():
        raise RequestError(f"--heatmaps {heatmaps} is a file; accepted: a folder")
    scorer = make_scorer(load(model, device))
    sets: dict[str, SetScores] = {}
    with ProgressBars() as bars:
        for name, where in {"images": images, **({"anomalies": anomalies} if anomalies else {})}.items():
            folder = Path(heatmaps) / (name if anomalies else "") if heatmaps else None
            sets[name] = score_set(
                scorer, where, seed=seed, max_pixels=max_pixels, heat_maps=folder,
                progress=lambda done, total, name=name: bars.update(name, done, total))  # type: ignore[misc]
            if not sets[name].scores:
                raise JobError(f"none of the images in {where} can be read, such as {sets[name].failed[0]}")
    result = _summarize(scorer, sets)
    _print(result, sets)
    json_output.write(result)
    if csv_file:
        write_text(Path(csv_file), _to_csv(scorer, sets))
    for name, each in sets.items():
        for line in each.converted.lines(name):
            print(f"note: {printable(line)}", file=sys.stderr)
    if failed := [line for each in sets.values() for line in each.failed]:
        for line in failed:
            print(f"failed: {printable(line)}", file=sys.stderr)
        total = len(failed) + sum(len(each.scores) for each in sets.values())
        raise JobError(f"{len(failed)} of {total} images could not be scored")


def _summarize(scorer: Scorer, sets: dict[str, SetScores]) -> dict[str, Any]:
    from i2i.metrics.detection import auroc
    result: dict[str, Any] = {"score": scorer.name, "meaning": scorer.meaning, "higher": "less likely"}
    for name, each in sets.items():
        values = list(each.scores.values())
        result[name] = {"n": len(values), "mean": statistics.fmean(values),
                        "std": statistics.stdev(values) if len(values) > 1 else 0.0, "each": each.scores}
    if "anomalies" in sets:
        area, low, high = auroc(*(list(sets[name].scores.values()) for name in ("images", "anomalies")))
        result["auroc"] = {"value": area, "low": low, "high": high}
    return result


def _print(result: dict[str, Any], sets: dict[str, SetScores]) -> None:
    print(f"score: {result['meaning']} (higher: less likely)")
    for name, each in sets.items():
        print(f"{name}: {result[name]['n']:,}, mean {result[name]['mean']:.4f}, standard deviation "
              f"{result[name]['std']:.4f}")
        highest = sorted(each.scores, key=each.scores.__getitem__, reverse=True)[:SHOWN]
        print("  highest: " + ", ".join(f"{file} {each.scores[file]:.4f}" for file in highest))
    if "auroc" in result:
        print("AUROC {value:.3f} ({low:.3f} to {high:.3f}): how often an anomaly scores higher".format(
            **result["auroc"]))


def _to_csv(scorer: Scorer, sets: dict[str, SetScores]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "file", scorer.name])
    for name, each in sets.items():
        writer.writerows([name, file, value] for file, value in each.scores.items())
    return text.getvalue()
