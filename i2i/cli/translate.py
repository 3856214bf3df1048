"""i2i translate."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from i2i.cli.labels import LabelOptions, Labels, Masks, Mix, print_copied
from i2i.cli.options import (
    FORMATS,
    NO_JSON,
    Device,
    Json,
    JsonOutput,
    MaxPixels,
    Model,
    Plugins,
    Steps,
    argument,
    option,
    writable_folder,
)
from i2i.cli.progress import ProgressBars, process_group
from i2i.cli.watch import Watch, watch_folder
from i2i.errors import JobError, RequestError, printable
from i2i.files import check_file, location_of

if TYPE_CHECKING:
    from i2i.data.sharding import ProcessGroup
    from i2i.inference.carry import CarryReport
    from i2i.inference.model import Model as TrainedModel
    from i2i.inference.translation_report import TranslationReport
    from i2i.inference.translator import Translator

Samples = Annotated[int, option(
    "N", "With --spread: samples of each input, of which the first is the result.", min=1)]
SpreadFolder = Annotated[str | None, option(
    "DIR", "The standard deviation of the samples by pixel goes here; white is 64 levels.")]

Direction = Annotated[str, option("ab|ba", "ba: from b to a, in models that learned both ways.")]
Seed = Annotated[int | None, option(
    None, "Draw a sample, of dropout or noise, instead of the deterministic result.", min=0)]
SkipExisting = Annotated[bool, option(
    None, "Skip inputs whose results are in DIR already.", "--skip-existing")]
Stages = Annotated[list[str] | None, option(
    "MODEL[:ba]", "Translate the results by another model, too; can be repeated.")]
Task = Annotated[str, option(
    "translate|denoise", "denoise: reconstructions by a model from noise, such as vae.")]
Half = Annotated[str | None, option("left|right", "Inputs are A|B strips: translate this half of each.")]
Memory = Annotated[str, option(
    "SIZE", "Limit of working memory, such as 2GB; what takes more is computed in parts, exactly.")]
Tile = Annotated[str, option("ROWS", "Rows of an image that are computed at once; auto: as many as fit.")]
OnError = Annotated[str, option(
    "skip|stop", "skip: report inputs that fail at the end; stop: end the job at the first.")]
Alpha = Annotated[str, option(
    "drop|carry", "carry: results keep the alpha of inputs, where the model makes none.")]
Flicker = Annotated[bool, option(
    None, "Of a video: measure how much more results change from frame to frame than inputs.", "--flicker")]


def translate(
    model: Model,
    source: Annotated[str, argument(
        "INPUT", "An image, a folder tree, a zip or zip/folder, a video or an animated GIF, WebP or PNG.")],
    out: Annotated[str, option(
        "DIR|URL", "Where results go, under the inputs' names; of a video also a file.")],
    direction: Direction = "ab", chain: Stages = None, task: Task = "translate", half: Half = None,
    batch: Annotated[int, option(None, "Images per batch; 0 chooses by their size.", min=0)] = 0,
    seed: Seed = None, steps: Steps = None, samples: Samples = 1, spread: SpreadFolder = None,
    statistics: Annotated[str | None, option(
        "running|image", "Batch norm statistics; by default running.")] = None,
    suffix: Annotated[str | None, option(FORMATS, "File format; by default the input's.", "--format")] = None,
    skip_existing: SkipExisting = False, on_error: OnError = "skip", alpha: Alpha = "drop",
    flicker: Flicker = False, memory: Memory = "auto", tile: Tile = "auto",
    labels: Labels = "none", masks: Masks = "", mix: Mix = None, watch: Watch = False,
    max_pixels: MaxPixels = None, json: Json = NO_JSON, device: Device = "auto", plugin: Plugins = None,
) -> None:
    """Translate images and videos: any size in, exactly that size out."""
    from i2i.inference.clips import is_clip
    from i2i.inference.generation_plan import parse_suffix
    from i2i.inference.tiled.limits import Limits
    _check_choice("--on-error", on_error, "stop", "skip")
    _check_choice("--alpha", alpha, "drop", "carry")
    _check_choice("--task", task, "translate", "denoise")
    _check_choice("--half", half or "left", "left", "right")
    suffix, limits = parse_suffix(suffix) if suffix else "", Limits.parse(memory, tile, "--")
    if spread and limits != Limits():
        raise RequestError("--spread takes images whole; accepted: no --memory and no --tile")
    processes = process_group(device)
    stages = _load_stages([(model, direction), *map(_stage, chain or ())], device, statistics, steps,
                          task == "denoise")
    _check_samples(samples, spread, out, [stage for stage, _ in stages])
    carry = LabelOptions(labels, masks, mix, [model, *(_stage(text)[0] for text in chain or ())], direction)
    translator, direction = _as_one(stages, task == "denoise")
    options: dict[str, Any] = {"direction": direction, "batch_size": batch, "seed": seed,
                               "carry_alpha": alpha == "carry"}
    if is_clip(source, still=bool(suffix)):
        _check_unused(source, {
            "--half": half, "--memory": limits.memory, "--tile": limits.tile, "--spread": spread,
            "--skip-existing": skip_existing, "--format": suffix, "--labels": carry.active, "--watch": watch})
        if not processes.rank:
            _translate_clip(translator, source, out, flicker, max_pixels, json, **options)
        return
    if flicker:
        raise RequestError("--flicker is for a video or an animated image, without --format")
    options |= {"half": half, "samples": samples, "skip_existing": skip_existing, "suffix": suffix,
                "stop": on_error == "stop", "limits": limits, "group": processes}
    if done := (watch_folder(translator, source, out, spread, max_pixels, carry.active, **options) if watch
                else _translate_images(translator, source, out, spread, max_pixels, carry, **options)):
        _print_report(json, *done)


def _check_unused(source: str, unused: dict[str, Any]) -> None:
    """RequestError for an option that has no meaning for a video."""
    if flags := [flag for flag, value in unused.items() if value]:
        raise RequestError(f"{flags[0]} is for images, and {source} is a video; accepted: --out FILE.mp4")


def _translate_images(model: Translator, source: str, out: str, spread: str | None, max_pixels: int | None,
                      carry: LabelOptions, *, group: ProcessGroup, **options: Any
                      ) -> tuple[TranslationReport, str, float, CarryReport | None] | None:
    """Translate a source: what the main process says of it."""
    from i2i.data.sources import open_source
    from i2i.inference import translate as translation
    images, dataset = carry.plan(open_source(source, max_pixels=max_pixels), out, group, **options)
    folder = writable_folder("--out", out, group.rank)
    spread_folder = writable_folder("--spread", spread, group.rank) if spread else None
    start = time.monotonic()
    with ProgressBars(group.rank, keep=True) as bars:
        report = translation.translate(
            model, images, folder, spread=spread_folder, group=group,
            progress=lambda report, total: bars.update(
                "images", report.done + report.skipped + len(report.failed), total), **options)
        if group.rank:
            return None
        seconds = max(time.monotonic() - start, 1e-9)
        copied = carry.copy(dataset, out, options["seed"], bars) if dataset else None
    return report, out, seconds, copied


def _translate_clip(model: Translator, path: str, out: str, flicker: bool, max_pixels: int | None,
                    json: JsonOutput, **options: Any) -> None:
    """Translate a video or an animated image, and print what was done."""
    from i2i.data.sources import output_file, output_folder
    from i2i.inference.clips import OUTPUTS, clip_target, translate_clip
    local = (output_file if Path(out).suffix.lower() in OUTPUTS else output_folder)("--out", out)
    made = model.formats[model.sides(options["direction"])[1]]
    target = clip_target(path, str(local), made, options["carry_alpha"])
    check_file("--out", str(target))
    start = time.monotonic()
    with ProgressBars(keep=True) as bars:
        report = translate_clip(
            model, path, target, flicker=flicker, max_pixels=max_pixels,
            progress=lambda done, total: bars.update("frames", done, total or None), **options)
    speed = report.frames / max(time.monotonic() - start, 1e-9)
    print(f"{report.frames:,} frames translated -> {location_of(target)}  ({report.coding}, "
          f"{speed:.1f} frames/s)")
    if flicker:
        print(report.flicker())
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    json.write({
        "out": location_of(target), "frames": report.frames, "coding": report.coding, "notes": report.notes,
        "frames_per_second": speed,
        **({"change": dict(zip(("inputs", "results"), report.change(), strict=False))} if flicker else {})})


def _as_one(stages: list[tuple[TrainedModel, str]], denoise: bool) -> tuple[Translator, str]:
    """Several stages as a chain, and the direction to use."""
    from i2i.inference.denoise import Denoiser
    from i2i.inference.translator import Chain
    model, direction = stages[0]
    first = Denoiser(model) if denoise else model
    return (Chain((first, direction), *stages[1:]), "ab") if stages[1:] else (first, direction)


def _load_stages(paths: list[tuple[str, str]], device: str, statistics: str | None,
                 steps: int | None, denoise: bool) -> list[tuple[TrainedModel, str]]:
    """Load the models that translate one after the other, as the options say, before anything is written."""
    from i2i.inference.shared_model import load_shared
    stages = [(load_shared(path, device), direction) for path, direction in paths]
    for stage, direction in stages[denoise:]:
        stage.sides(direction)      # Raises for a direction that was not learned.
        stage.statistics = statistics or stage.statistics
    for stage in [stage for stage, _ in stages if stage.samples_in_steps] or [stages[0][0]]:
        stage.set_sampling(steps)
    return stages


def _print_report(json: JsonOutput, report: TranslationReport, out: str, seconds: float,
                  copied: CarryReport | None = None) -> None:
    """Print what was done.  JobError if some images could not be translated, or other files not copied."""
    print(f"{report.done:,} translated" + (f", {report.skipped:,} there already" if report.skipped else "")
          + f" -> {out}  ({report.done / seconds:.1f} images/s)")
    if report.left_out:
        print(f"note: {report.left_out}", file=sys.stderr)
    for note, name in sorted(report.notes.items()):
        print(f"note: {note}, such as {name}", file=sys.stderr)
    for problem in report.failed:
        print(f"failed: {printable(problem)}", file=sys.stderr)
    if copied:
        print_copied(copied)
    json.write({"out": out, **asdict(report), "seconds": seconds,
                       "images_per_second": report.done / seconds,
                       **({"other_files": asdict(copied)} if copied else {})})
    if report.failed:
        total = report.done + report.skipped + len(report.failed)
        raise JobError(f"{len(report.failed)} of {total} images could not be translated")
    if copied and copied.failed:
        raise JobError(f"other files that are wrong or could not be copied: {len(copied.failed)}")


def _check_choice(flag: str, value: str, *choices: str) -> None:
    if value not in choices:
        separator = " or " if len(choices) == 2 else ", "
        raise RequestError(f"{flag} {value} is not known; accepted: {separator.join(choices)}")


def _check_samples(samples: int, spread: str | None, out: str, stages: list[TrainedModel]) -> None:
    """RequestError for samples without a usable folder for their spread, or that would all be the same."""
    from i2i.inference.spread import is_stochastic
    if (samples > 1) != (spread is not None):
        raise RequestError("--samples N, 2 or more, and --spread DIR go together: the standard deviation of "
                           "the samples is what they are for")
    if spread and any(one == other or one in other.parents for one, other in permutations(
            [Path(spread).resolve(), Path(out).resolve()])):
        raise RequestError(f"--spread {spread} and --out {out} hold files of the same names; accepted: "
                           "folders beside each other")
    if spread and not any(map(is_stochastic, stages)):
        raise RequestError(f"--samples {samples}: this {stages[0].header['recipe']['name']} model makes the "
                           "same image each time; accepted: one with dropout, or that samples noise")


def _stage(text: str) -> tuple[str, str]:
    """Split MODEL or MODEL:ba into path and direction; a file that has such a name is a path."""
    path, colon, direction = text.rpartition(":")
    if colon and path and direction in ("ab", "ba") and not Path(text).exists():
        return path, direction
    return text, "ab"
