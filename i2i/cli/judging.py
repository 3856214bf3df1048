"""i2i evaluate, i2i weights."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from rich import progress as rich_progress
from rich.console import Console

from i2i import registry
from i2i.cli.launcher import process_group
from i2i.data.image_set import open_image_set
from i2i.data.paired import PairedDataset
from i2i.data.sharding import ProcessGroup
from i2i.data.sources import open_source
from i2i.errors import RequestError
from i2i.evaluation import protocol
from i2i.evaluation.evaluate_model import evaluate_model, sample_sheet
from i2i.evaluation.evaluate_sets import evaluate_sets
from i2i.evaluation.request import (
    DEFAULT_MODEL_METRICS,
    DEFAULT_SET_METRICS,
    FID_ALIASES,
    EvaluationRequest,
    Progress,
    choose_features,
    choose_metrics,
)
from i2i.inference import model as inference
from i2i.inference.device import best_device
from i2i.metrics import weights as feature_weights
from i2i.runs.folder import check_file, write_atomically

ARROWS = {"lower": "lower is better", "higher": "higher is better"}


@dataclass(frozen=True)
class Options:
    """The options of `i2i evaluate`, as typed."""

    metrics: str | None = None
    settings: Sequence[str] = ()
    features: str | None = None
    weights: str | None = None
    resize: str = "clean"
    seed: int = 0
    bootstrap: int = 20
    batch: int = 32
    cache: bool = True
    against: str | None = None
    json_file: str | None = None
    device: str = "auto"


def evaluate(model: str | None, *, real: str | None, fake: str | None, data: str | None, split: str,
             direction: str | None,
             sheet: str | None, options: Options) -> None:
    """Judge a model, or a folder of fakes against a folder of reals."""
    if (model is None) == (real is None and fake is None):
        raise RequestError("what to evaluate? i2i evaluate --real DIR --fake DIR, or i2i evaluate MODEL "
                           "[--data DIR]")
    for flag, file in (("--sheet", sheet), ("--json", options.json_file)):
        check_file(flag, file)      # Before the work, whose figures would be lost.
    processes = process_group(options.device)
    old = protocol.read_result(Path(options.against)) if options.against and not processes.rank else None
    if model is None:
        if real is None or fake is None:
            raise RequestError("--real and --fake go together")
        for flag, value in (("--data", data), ("--direction", direction), ("--sheet", sheet)):
            if value is not None:
                raise RequestError(f"{flag} {value} belongs to i2i evaluate MODEL; the sets are --real and "
                                   "--fake")
        began = time.monotonic()
        fakes, reals = open_image_set(fake, "--fake"), open_image_set(real, "--real")
        request, extractor = _request(options, DEFAULT_SET_METRICS)
        with Bars(processes) as tell:
            outcome = evaluate_sets(fakes, reals, extractor, replace(request, progress=tell, group=processes))
        if processes.rank:
            return
        print(f"{len(fakes):,} fakes of {fake} against {len(reals):,} reals of {real}, "
              f"{time.monotonic() - began:.0f} s")
        columns = {"": outcome["results"]}
    else:
        outcome, columns = _model(model, data, split, direction or "ab", sheet, options, processes)
        if processes.rank:
            return
    if old is not None:
        protocol.check_comparable(outcome, old, str(options.against))
        columns |= {"before": old["results"]}
    _print(outcome, columns)
    if options.json_file:
        write_atomically(Path(options.json_file), lambda path: _write(path, protocol.to_json(outcome)))


def _model(model: str, data: str | None, split: str, direction: str, sheet: str | None, options: Options,
           processes: ProcessGroup) -> tuple[dict[str, Any], dict[str, Any]]:
    loaded = inference.load(model, options.device)
    if not loaded.recipe.sources:
        raise RequestError(f"{model} makes images from noise, which have no targets; accepted: i2i generate "
                           f"{model} --n 5000 --out DIR, and then "
                           "i2i evaluate --fake DIR --real DIR")
    where = data or loaded.header.get("data")
    if not where:
        raise RequestError(f"{model} does not say what it was trained on; give --data")
    splits = registry.build("dataset", registry.Spec(loaded.recipe.dataset), open_source(where),
                            loaded.header.get("direction", "ab"))
    if split not in splits:
        raise RequestError(f"{where} has no {split} split; {registry.suggest(split, splits)}")
    if not isinstance(splits[split], PairedDataset):
        raise RequestError(f"the {split} images of {where} are no pairs ({splits[split].layout}): there is "
                           "nothing to hold a translation against; "
                           f"accepted: {split}A and {split}B with the same names, or the translations as "
                           "--fake and a folder as --real")
    loaded.sides(direction)     # Refused before slow files are read.
    began = time.monotonic()
    request, extractor = _request(options, DEFAULT_MODEL_METRICS)
    with Bars(processes) as tell:
        both = evaluate_model(loaded, splits[split], extractor,
                              replace(request, progress=tell, group=processes), direction=direction)
    if processes.rank:
        return {}, {}
    print(f"{len(splits[split])} {split} pairs of {where}, {time.monotonic() - began:.0f} s")
    if sheet:
        picture = sample_sheet(loaded, splits[split], direction=direction)
        write_atomically(Path(sheet), lambda path: Image.fromarray(picture).save(path, "png"))
    columns = {name: outcome["results"] for name, outcome in both.items()}
    scores = {name: {key: figure["value"] for key, figure in results.items()} for name,
              results in columns.items()}
    head = {"data": str(where), "split": split, "direction": direction, "n": len(splits[split]),
            "statistics": loaded.statistics,
            "images": loaded.header.get("images"), "quantized": "uint8, rounded", "scores": scores}
    return head | both["model"], columns


def _request(options: Options, default: Sequence[str]) -> tuple[EvaluationRequest, Any]:
    """The request, and the feature network if a metric needs one."""
    weights = Path(options.weights) if options.weights else None
    if weights is not None and not weights.exists():
        raise RequestError(f"--weights {weights} does not exist")
    words = [word.strip() for word in options.metrics.split(",")] if options.metrics else list(default)
    needs = any(word not in registry.names("paired_metric") for word in words)
    features = "inception" if options.features is None and any(word in FID_ALIASES or word == "is"
                                                               for word in words) else options.features
    extractor = None
    if needs:
        device = str(best_device(options.device))
        # Wrong words before slow files.
        choose_metrics(options.metrics, options.settings, default, features or "inception")
        extractor = choose_features(features, weights, options.resize, device)
    name = extractor.name if extractor else "none"
    if name == "inception" and not options.metrics and default is DEFAULT_SET_METRICS:
        default = (*default, "is")
    metrics = choose_metrics(options.metrics, options.settings, default, name)
    return EvaluationRequest(metrics, options.metrics is not None, options.seed, options.bootstrap,
                                     options.batch, options.cache, weights), extractor


class Bars:
    """A bar for each thing that is measured, on a terminal only, of the leading process."""

    def __init__(self, processes: ProcessGroup) -> None:
        self.bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"), rich_progress.BarColumn(None),
            rich_progress.MofNCompleteColumn(), rich_progress.TimeRemainingColumn(), console=Console(stderr=True),
            disable=processes.rank > 0 or not sys.stderr.isatty(), transient=True)
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self.bars.__enter__()
        return self.tell

    def __exit__(self, *error: Any) -> None:
        self.bars.__exit__(*error)

    def tell(self, what: str, done: int, of: int) -> None:
        """Move the bar of `what`."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=of)
        self.bars.update(self.tasks[what], completed=done, total=of)


def _print(outcome: Mapping[str, Any], columns: Mapping[str, Mapping[str, Any]]) -> None:
    first = next(iter(columns.values()))
    width = max([len(name) for name in first] + [6])
    print(f"{'':{width}}" + "".join(f"{name or 'value':>16}" for name in columns)
          + (f"{'95 % interval':>22}" if _has_intervals(first) else ""))
    for name, figure in first.items():
        cells = "".join(f"{_number(results[name]['value']) if name in results else '-':>16}"
                        for results in columns.values())
        interval = f"{_number(figure['low'])} … {_number(figure['high'])}" if "low" in figure else ""
        words = [ARROWS.get(figure.get("better", ""), ""),
                 f"± {_number(figure['spread'])} over subsets" if "spread" in figure else "",
                 figure.get("note", "")]
        print(f"{name:{width}}{cells}" + (f"{interval:>22}" if _has_intervals(first) else "") + "  "
              + "; ".join(word for word in words if word))
    stamp = outcome["stamp"]
    if stamp["features"] != "none":
        print(f"features {stamp['features']} (weights {stamp['weights'][:8]}), resize {stamp['resize']}, "
              f"n {stamp['n_fake']:,} against {stamp['n_real']:,}")
    for line in outcome["warnings"]:
        print(f"warning: {line}", file=sys.stderr)


def _has_intervals(figures: Mapping[str, Any]) -> bool:
    return any("low" in figure for figure in figures.values())


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------- weights

def list_weights() -> None:
    """What is known, and whether and where it lies."""
    for name, known in feature_weights.catalog().items():
        found = feature_weights.locate_weights(name)
        print(f"{name:20}{'here' if found else 'absent':8}{known.license:14}{known.purpose}")
        print(f"{'':20}{found or feature_weights.download_hint(known)}")
        print(f"{'':20}sha256 {known.sha256}")


def add_weights(files: Sequence[str], name: str | None) -> None:
    """Take files that the user has into the cache."""
    if name and len(files) > 1:
        raise RequestError(f"--name {name} is for one file; {len(files)} came")
    for file in files:
        known, where = feature_weights.add_weights(Path(file), name)
        print(f"{known.name} -> {where}")


def fetch_weights(wanted: Sequence[str]) -> None:
    """Download files into the cache."""
    for name in wanted:
        known, where = feature_weights.download_weights(name)
        print(f"{known.name} -> {where}")
