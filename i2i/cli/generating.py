"""i2i generate."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import i2i
from i2i.cli.launcher import process_group
from i2i.data.sources import check_local
from i2i.errors import RequestError
from i2i.inference import generate as generating
from i2i.inference import model as inference
from i2i.inference.generated_sets import open_store, read_plan
from i2i.inference.generation_plan import GenerationPlan


def generate(model: str, out: str, *, n: int | None, only: str | None, like: str | None,
             settings: Mapping[str, Any], device: str) -> None:
    """Make a set of images, or single ones of it, and say what was made."""
    if (n is None) == (only is None):
        raise RequestError("how many images? accepted: --n N, or --only INDEX,INDEX for single ones"
                           if n is None else
                           "--n and --only cannot both be given: all of the first N, or only some")
    check_local("--out", out)
    processes = process_group(device)
    loaded = inference.load(model, device)
    plan = _plan(model, loaded, like, {key: value for key, value in settings.items() if value is not None})
    if only is not None:
        if Path(out).suffix.lower() == ".zip":
            raise RequestError(f"--only writes single files, not a zip; --out {out} must be a folder")
        if not processes.rank:      # Few: not worth sharing.
            for path in generating.regenerate(loaded, plan, Path(out), generating.indices(only)):
                print(path)
        return
    assert n is not None
    generating.check_number(n)
    where = open_store(out, plan, processes)
    began = time.monotonic()
    try:
        with Progress(BarColumn(None), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn(),
                      console=Console(stderr=True),
                      disable=processes.rank > 0 or not sys.stderr.isatty()) as progress:
            task = progress.add_task("", total=n)
            report = generating.generate(loaded, where, n, group=processes,
                                         progress=lambda report: progress.update(task,
                                                                                 completed=report.done
                                                                                 + report.skipped))
    finally:
        where.close()
    if processes.rank:
        return
    seconds = time.monotonic() - began
    print(f"{report.done:,} generated" + (f", {report.skipped:,} there already" if report.skipped else "")
          + f" -> {out}" + (f"  ({report.done / max(seconds, 1e-9):.1f} images/s)" if report.done else ""))


def _plan(model: str, loaded: inference.Model, like: str | None, given: dict[str, Any]) -> GenerationPlan:
    """What to make: by the options, or as it was made elsewhere."""
    if like is None:
        if "suffix" in given:
            given["suffix"] = f".{given['suffix'].lower().lstrip('.')}"
        return generating.plan_generation(model, loaded, **given)
    if given:
        option = next(iter(given)).replace("suffix", "format")
        raise RequestError(f"--like takes everything from {like}; --{option} cannot be given with it")
    plan = read_plan(like)
    generating.check_model(plan, model)
    if plan.i2i != i2i.__version__:
        print(f"{like} was made by i2i {plan.i2i}, this is {i2i.__version__}: pixels may differ",
              file=sys.stderr)
    return plan
