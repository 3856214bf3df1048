"""i2i generate."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from i2i.cli.options import (
    FORMATS,
    NO_JSON,
    Classes,
    Device,
    Json,
    JsonOutput,
    NoiseModel,
    Plugins,
    Steps,
    option,
)
from i2i.cli.progress import ProgressBars, process_group
from i2i.errors import RequestError

if TYPE_CHECKING:
    from i2i.data.sharding import ProcessGroup
    from i2i.inference.generation_plan import GenerationPlan
    from i2i.inference.model import Model

Layout = Annotated[str | None, option(
    "imagefolder|webdataset|parquet|coco", "How images lie in DIR; by default imagefolder: class folders.")]
Shard = Annotated[int | None, option(
    "N", "Images in a shard of webdataset and parquet; by default 10,000.", min=1)]


def generate(
    model: NoiseModel,
    out: Annotated[str, option(
        "DIR|ZIP|URL", "Where images go; the same command continues an unfinished set.")],
    n: Annotated[int | None, option(
        "N", "How many.  Launchers may take --n as theirs.", "--n", "--number")] = None,
    classes: Classes = None,
    truncation: Annotated[float | None, option(
        None, "Below 1: styles nearer to their mean, less variety. Style networks only.")] = None,
    steps: Steps = None,
    guidance: Annotated[float | None, option(
        None, "Weight of the label, in models with steps; above 1: more typical images.")] = None,
    seed: Annotated[int | None, option(None, "Another seed, other images; by default 0.", min=0)] = None,
    batch: Annotated[int | None, option(
        None, "Images per batch; by default, and for 0, chosen by their size.", min=0)] = None,
    suffix: Annotated[str | None, option(FORMATS, "File format; by default png.", "--format")] = None,
    only: Annotated[str | None, option("INDEX,INDEX", "Only these images of the whole set.")] = None,
    layout: Layout = None, shard: Shard = None,
    like: Annotated[str | None, option("DIR|ZIP", "Use all settings of this set, generated before.")] = None,
    json_output: Json = NO_JSON, device: Device = "auto", plugin: Plugins = None,
) -> None:
    """Generate images from noise, in class folders and with a manifest by which each can be made again."""
    from i2i.data.sources import output_folder
    from i2i.files import location_of
    from i2i.inference import generate as generation
    from i2i.inference.shared_model import load_shared
    if n is not None and only is not None:
        raise RequestError("--n and --only cannot both be given: all of the first N, or only some")
    if n is None and only is None:
        raise RequestError("how many images? accepted: --n N, or --only INDEX,INDEX for single ones")
    if only is not None and (layout or shard):
        raise RequestError("--only writes single files; --layout and --shard go with --n")
    processes = process_group(device)
    loaded = load_shared(model, device)
    options = {"classes": classes, "truncation": truncation, "steps": steps, "guidance": guidance,
               "seed": seed, "batch_size": batch, "suffix": suffix, "layout": layout}
    plan = _plan(model, loaded, like, {key: value for key, value in options.items() if value is not None})
    untrained = [plan.classes[label] for label in plan.turn if label not in loaded.learned_classes]
    if untrained and not processes.rank:
        print(f"warning: the model saw no images of class {', '.join(untrained)}", file=sys.stderr)
    if only is not None:
        if Path(out).suffix.lower() == ".zip":
            raise RequestError(f"--only writes single files, not a zip; --out {out} must be a folder")
        if not processes.rank:
            files = [location_of(path) for path in generation.regenerate(
                loaded, plan, output_folder("--out", out), generation.parse_indices(only))]
            print(*files, sep="\n")
            json_output.write({"files": files})
    elif n is not None:
        _generate_all(loaded, plan, out, n, shard, processes, json_output)


def _generate_all(loaded: Model, plan: GenerationPlan, out: str, n: int, shard: int | None,
                  processes: ProcessGroup, json_output: JsonOutput) -> None:
    from i2i.data.sources import uploaded_when_done
    from i2i.inference.generate import generate_set
    from i2i.inference.shard_store import SHARD_SIZE
    if shard and plan.layout not in ("webdataset", "parquet"):
        raise RequestError(f"--shard {shard} needs --layout webdataset or parquet")
    start = time.monotonic()
    with uploaded_when_done("--out", out, rank=processes.rank) as local, \
            ProgressBars(processes.rank, keep=True) as bars:
        report = generate_set(loaded, plan, local, n, group=processes, shard_size=shard or SHARD_SIZE,
                              progress=lambda report: bars.update("images", report.done + report.skipped, n))
    if processes.rank:
        return
    seconds = max(time.monotonic() - start, 1e-9)
    print(f"{report.done:,} generated" + (f", {report.skipped:,} there already" if report.skipped else "")
          + f" -> {out}" + (f"  ({report.done / seconds:.1f} images/s)" if report.done else ""))
    json_output.write({"out": out, **asdict(report), "seconds": seconds,
                       "images_per_second": report.done / seconds})


def _plan(model: str, loaded: Model, like: str | None, options: dict[str, Any]) -> GenerationPlan:
    """What to generate: by the options, or as in an earlier set."""
    from i2i.config import VERSION
    from i2i.inference.generation_plan import check_model, plan_generation
    from i2i.inference.image_store import read_plan
    if like is None:
        if "suffix" in options:
            options["suffix"] = f".{options['suffix'].lower().lstrip('.')}"
        return plan_generation(model, loaded, **options)
    if options:
        option = next(iter(options)).replace("suffix", "format").replace("batch_size", "batch")
        raise RequestError(f"--like takes everything from {like}; --{option} cannot be given with it")
    plan = read_plan(like)
    check_model(plan, model)
    if plan.i2i != VERSION:
        print(f"{like} was made by i2i {plan.i2i}, this is {VERSION}: pixels may differ", file=sys.stderr)
    return plan
