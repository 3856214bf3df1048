"""i2i evaluate."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from i2i.cli.options import NO_JSON, Device, Json, MaxPixels, Plugins, argument, option, output_option
from i2i.cli.progress import ProgressBars, process_group
from i2i.errors import RequestError

if TYPE_CHECKING:
    from i2i.data.paired import PairedDataset
    from i2i.data.sharding import ProcessGroup
    from i2i.evaluation.request import EvaluationRequest
    from i2i.inference.model import Model
    RequestFactory = Callable[..., tuple[EvaluationRequest, Any]]
    Outcome = tuple[dict[str, Any], dict[str, Any]]     # As JSON, and the columns of the table.

Direction = Annotated[str | None, option(
    "ab|ba", "ba: evaluate the translation from b to a, of models that learned both.")]
Sheet = Annotated[str | None, output_option(
    "FILE.png|URL", "Write an image of a model's inputs, results and targets.", "--sheet")]
Metrics = Annotated[str | None, option(
    "NAME,NAME", "fd, fid, kid, is, precision_recall, density_coverage, diversity, color, fd_infinity; of "
                 "pairs by name: l1, psnr, ssim, ms_ssim, lpips.")]
MetricSettings = Annotated[list[str] | None, option(
    "METRIC.OPTION=VALUE", "Such as kid.subsets=50; see i2i list metric.", "--set")]
Features = Annotated[str | None, option(
    "NAME,NAME", "Feature networks that judge, see i2i list feature_network; by default inception or "
                 "efficientnet-lite0, and others that share nothing with it.")]
Weights = Annotated[str | None, option(
    "FILE|DIR", "Weights of the features; by default the cache, then weights/.")]
Resize = Annotated[str, option(
    "clean|legacy-pytorch|legacy-tf", "How images are resized to the network's input.")]
Cache = Annotated[bool, option(
    None, "Keep the features of the reference set for the next time.", "--cache/--no-cache")]
SaveStatistics = Annotated[str | None, output_option(
    "FILE.npz|URL", "Write mean and covariance of the first network's features of --real, as pytorch-fid and "
                "clean-fid read them; --fake may then be left out.")]
Against = Annotated[str | None, option(
    "FILE", "An earlier --json to compare with; refused if it was measured otherwise.")]


def evaluate(
    model: Annotated[str | None, argument(
        "[MODEL]", "A model, by file, run folder, RUN@IMAGES or name; or give --real and --fake.")] = None,
    real: Annotated[str | None, option(
        "DIR|ZIP|NAME|NPZ", "The reference set, or its statistics (mu and sigma in a .npz).")] = None,
    fake: Annotated[str | None, option("DIR|ZIP|NAME", "The set to evaluate.")] = None,
    data: Annotated[str | None, option(
        "DIR|ZIP|NAME", "Pairs; by default of the data the model was trained on.")] = None,
    split: Annotated[str, option("test|val|train", "Which split.")] = "test",
    direction: Direction = None, sheet: Sheet = None, metrics: Metrics = None,
    settings: MetricSettings = None, features: Features = None, weights: Weights = None,
    resize: Resize = "clean", max_pixels: MaxPixels = None,
    bootstrap: Annotated[int, option(None, "Rounds for the intervals; 0 for none.", min=0)] = 20,
    batch: Annotated[int, option(None, "Images per batch.", min=1)] = 32,
    seed: Annotated[int, option(None, "Of bootstrap samples and random pairs.", min=0)] = 0,
    cache: Cache = True, save_statistics: SaveStatistics = None, against: Against = None,
    json_output: Json = NO_JSON, device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Evaluate a set of images against a reference set, or a model's translations against their targets."""
    from i2i.evaluation import protocol
    from i2i.files import check_file
    from i2i.inference.model import load
    _check_options(model, real, fake or save_statistics, data=data, direction=direction, sheet=sheet)
    for flag, file in (("--sheet", sheet), ("--save-statistics", save_statistics)):
        check_file(flag, file)      # Now, not after the work.
    processes = process_group(device)
    make_request = partial(
        _make_request, metrics=metrics, settings=settings or (), features=features, resize=resize, seed=seed,
        weights=Path(weights) if weights else None, bootstrap=bootstrap, batch=batch, cache=cache,
        device=device, group=processes)
    previous = protocol.read_result(Path(against)) if against and not processes.rank else None
    if model is None:
        outcome, columns = _evaluate_sets(fake, real or "", features, max_pixels, save_statistics,
                                          make_request)
    else:
        outcome, columns = _evaluate_model(model, load(model, device), data, split, max_pixels,
                                           direction or "ab", sheet, make_request)
    if processes.rank or not outcome:
        return
    try:
        columns |= protocol.compare(outcome, previous, str(against))
    finally:        # A result that cannot be compared, or saved, is a result.
        print_results(outcome, columns)
        json_output.write(outcome)


def _check_options(model: str | None, real: str | None, compared: str | None,
                   **of_models: str | None) -> None:
    """RequestError for options of a model beside those of sets, and for a set alone."""
    if (model is None) == (real is None and compared is None):
        raise RequestError("what to evaluate? i2i evaluate --real DIR --fake DIR, or i2i evaluate MODEL")
    if model is None and (real is None or compared is None):
        raise RequestError("--real and --fake go together")
    for name, value in of_models.items():
        if model is None and value is not None:
            raise RequestError(f"--{name} {value} belongs to i2i evaluate MODEL; the sets are --real and "
                               "--fake")


def _evaluate_sets(fake: str | None, real: str, features: str | None, max_pixels: int | None,
                   save_statistics: str | None, make_request: RequestFactory) -> Outcome:
    from i2i.data.image_set import ImageSet, open_image_set
    from i2i.evaluation.evaluate_sets import evaluate_sets, write_set_statistics
    from i2i.evaluation.request import DEFAULT_SET_METRICS
    from i2i.evaluation.stored_statistics import METRICS, read_statistics
    from i2i.inference.image_store import trained_with
    start, stored = time.monotonic(), read_statistics(real)
    if stored and save_statistics:
        raise RequestError(f"--save-statistics {save_statistics}: --real {real} holds statistics already")
    fakes = open_image_set(fake, "--fake", max_pixels=max_pixels) if fake else None
    reals = stored or open_image_set(real, "--real", max_pixels=max_pixels)
    request, judges = make_request(METRICS if stored else DEFAULT_SET_METRICS,
                                   trained_with(fake) if fake else MappingProxyType({}),
                                   features=features or (stored.network if stored else None))
    if stored and judges:
        stored.check(judges)
        request = replace(request, warnings=(*request.warnings, *stored.warnings(judges[0].resize)))
    with ProgressBars(request.group.rank) as bars:
        request = replace(request, progress=bars.update)
        if save_statistics and isinstance(reals, ImageSet):
            write_set_statistics(Path(save_statistics), reals, judges, request)
        outcome = evaluate_sets(fakes, reals, judges, request) if fakes else {}
    if request.group.rank or not fakes:
        return {}, {}
    of = f"{len(reals):,} reals of" if isinstance(reals, ImageSet) else "the statistics"
    print(f"{len(fakes):,} fakes of {fake} against {of} {real}, {time.monotonic() - start:.0f} s")
    return outcome, {"": outcome["results"]}


def _evaluate_model(model: str, loaded: Model, data: str | None, split: str, max_pixels: int | None,
                    direction: str, sheet: str | None, make_request: RequestFactory) -> Outcome:
    from PIL import Image

    from i2i.evaluation.evaluate_model import evaluate_model, sample_sheet
    from i2i.evaluation.request import DEFAULT_MODEL_METRICS
    from i2i.files import write_atomically
    where, pairs, selection = _pairs(model, loaded, data, split, max_pixels)
    loaded.sides(direction)     # Raises for a direction that was not learned, before slow files are read.
    start = time.monotonic()
    request, judges = make_request(DEFAULT_MODEL_METRICS, loaded.header.get("feature_networks", {}))
    if sheet and not request.group.rank:        # Now, as it may not be possible to write it.
        picture = Image.fromarray(sample_sheet(loaded, pairs, direction=direction))
        write_atomically(Path(sheet), lambda path: picture.save(path, "png"))
    with ProgressBars(request.group.rank) as bars:
        both = evaluate_model(loaded, pairs, judges, replace(request, progress=bars.update),
                              direction=direction)
    if request.group.rank:
        return {}, {}
    by_name = "" if loaded.recipe.dataset == "paired" else " by name"
    print(f"{len(pairs)} {split} pairs{by_name} of {where}, {time.monotonic() - start:.0f} s"
          + (f"; {selection}" if selection else ""))
    columns = {name: outcome["results"] for name, outcome in both.items()}
    scores = {name: {key: figure["value"] for key, figure in results.items()}
              for name, results in columns.items()}
    head = {"data": where, "split": split, "direction": direction, "n": len(pairs),
            "statistics": loaded.statistics, "images": loaded.header.get("images"),
            "quantized": "uint8, rounded", "selection": selection, "scores": scores}
    return head | both["model"], columns


def _pairs(path: str, model: Model, data: str | None, split: str,
           max_pixels: int | None) -> tuple[str, PairedDataset, str]:
    """Where the data are, the pairs of a split of them, and whether these are held out."""
    from i2i import registry
    from i2i.data.paired import PairedDataset
    from i2i.data.sources import open_source, same_location
    from i2i.metrics.judges import describe_selection
    if not model.recipe.sources:
        raise RequestError(f"{path} makes images from noise, which have no targets; accepted: i2i generate "
                           f"{path} --n 5000 --out DIR, and then i2i evaluate --fake DIR --real DIR")
    known = model.header.get("data") or ""
    where = data or known
    if not where:
        raise RequestError(f"{path} does not say what it was trained on; give --data")
    source = open_source(where, max_pixels=max_pixels)
    splits = registry.build("dataset", registry.Spec(model.recipe.dataset), source,
                            model.header.get("direction", "ab"))
    if split not in splits:
        raise RequestError(f"{where} has no {split} split; {registry.suggest(split, splits)}")
    if not isinstance(splits[split], PairedDataset):
        raise RequestError(f"the {split} images of {where} are not pairs ({splits[split].layout}): nothing "
                           f"to compare translations with; accepted: {split}A and {split}B with the same "
                           "names, or the translations as --fake and a folder as --real")
    own = bool(known) and same_location(where, known)
    picked_on = str(model.header.get("picked_on", ""))
    return str(where), splits[split], \
        describe_selection(split, picked_on, has_val="val" in splits) if own else ""


def _make_request(default: Sequence[str], trained_with: Mapping[str, str] = MappingProxyType({}), *,
                  metrics: str | None, settings: Sequence[str], features: str | None,
                  weights: Path | None, resize: str, device: str, seed: int, bootstrap: int, batch: int,
                  cache: bool, group: ProcessGroup) -> tuple[EvaluationRequest, Any]:
    """The request, and the feature networks if a metric needs any."""
    from i2i import registry
    from i2i.evaluation import request as requests
    from i2i.inference.device import best_device
    from i2i.metrics.judges import partiality_warnings
    if weights is not None and not weights.exists():
        raise RequestError(f"--weights {weights} does not exist")
    names = [name.strip() for name in metrics.split(",")] if metrics else list(default)
    judges: list[Any] = []
    if features is None and any(name in requests.FID_ALIASES or name == "is" for name in names):
        features = "inception"
    if any(name not in registry.names("paired_metric") for name in names):
        # Raises for wrong options, before slow files are read.
        requests.choose_metrics(metrics, settings, default, (features or "inception").partition(",")[0])
        judges = requests.choose_features(features, weights, resize, str(best_device(device)), trained_with)
    name = judges[0].name if judges else "none"
    if name == "inception" and not metrics and default is requests.DEFAULT_SET_METRICS:
        default = (*default, "is")
    chosen = requests.choose_metrics(metrics, settings, default, name)
    networks = {judge.name: judge.weights for judge in judges} | requests.networks_of_pairs(chosen)
    return requests.EvaluationRequest(
        chosen, metrics is not None, seed, bootstrap,
        batch, cache, weights, tuple(partiality_warnings(networks, trained_with)), group=group), judges


def print_results(outcome: Mapping[str, Any], columns: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table of scores, the intervals of the first column, and warnings to stderr."""
    first = next(iter(columns.values()))
    width = max([len(name) for name in first] + [6])
    has_intervals = any("low" in figure for figure in first.values())
    print(f"{'':{width}}" + "".join(f"{name or 'value':>16}" for name in columns)
          + (f"{'95 % interval':>22}" if has_intervals else ""))
    for name, figure in first.items():
        cells = "".join(f"{_number(results[name]['value']) if name in results else '-':>16}"
                        for results in columns.values())
        interval = f"{_number(figure['low'])} … {_number(figure['high'])}" if "low" in figure else ""
        remarks = [f"{figure['better']} is better" if figure.get("better") in ("lower", "higher") else "",
                   f"± {_number(figure['spread'])} over subsets" if "spread" in figure else "",
                   figure.get("note", "")]
        print(f"{name:{width}}{cells}" + (f"{interval:>22}" if has_intervals else "") + "  "
              + "; ".join(filter(None, remarks)))
    stamp = outcome["stamp"]
    if stamp["features"] != "none":
        judges = {stamp["features"]: stamp["weights"]} | stamp["more_features"]
        print("features " + ", ".join(f"{name} (weights {weights[:8]})" for name, weights in judges.items())
              + f", resize {stamp['resize']}, n {stamp['n_fake']:,} against "
              + (f"{stamp['n_real']:,}" if stamp["n_real"] else "unknown"))
    for line in outcome["warnings"]:
        print(f"warning: {line}", file=sys.stderr)


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"
