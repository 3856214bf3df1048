"""i2i translate, import."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from i2i import config, convert, registry
from i2i.cli.launcher import process_group
from i2i.data.sources import check_local, open_source
from i2i.errors import JobError, RequestError, printable
from i2i.images.encode import FILE_FORMATS
from i2i.inference import model as inference
from i2i.inference import translate as translation
from i2i.inference.chain import Chain


def translate(model: str, source: str, out: str, *, direction: str, chain: Sequence[str], half: str | None,
              batch: int, seed: int | None,
              statistics: str | None, suffix: str, skip_existing: bool, on_error: str, device: str) -> None:
    """Run a folder job and say what became of every input."""
    if on_error not in ("stop", "skip"):
        raise RequestError(f"--on-error {on_error} is not known; accepted: stop or skip")
    if half not in (None, "left", "right"):
        raise RequestError(f"--half {half} is not known; accepted: left or right")
    suffix = f".{suffix.lower().lstrip('.')}" if suffix else ""
    if suffix and suffix not in FILE_FORMATS:
        raise RequestError(f"--format {suffix[1:]} is not known; accepted: "
                           f"{', '.join(key[1:] for key in FILE_FORMATS)}")
    processes = process_group(device)
    stages = [(inference.load(path, device), way) for path, way in ((model, direction), *map(_stage, chain))]
    for each, way in stages:
        each.sides(way)     # Refused before anything is written.
        each.statistics = statistics or each.statistics
    loaded, direction = (Chain(*stages), "ab") if chain else stages[0]
    where = _writable(out, processes.rank)
    began = time.monotonic()
    with Progress(BarColumn(None), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn(),
                  console=Console(stderr=True),
                  disable=processes.rank > 0 or not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=None)

        def tell(report: translation.TranslationReport, total: int) -> None:
            progress.update(task, total=total, completed=report.done + report.skipped + len(report.failed))

        report = translation.translate(loaded, open_source(source), where, direction=direction,
                                       half=cast(Literal["left", "right"] | None, half), batch=batch,
                                       seed=seed,
                                       skip_existing=skip_existing, suffix=suffix, stop=on_error == "stop",
                                       group=processes, progress=tell)
    if processes.rank:
        return
    seconds = time.monotonic() - began
    print(f"{report.done:,} translated" + (f", {report.skipped:,} there already" if report.skipped else "")
          + f" -> {out}  ({report.done / max(seconds, 1e-9):.1f} images/s)")
    for note, name in sorted(report.notes.items()):
        print(f"note: {note}, such as {name}", file=sys.stderr)
    for problem in report.failed:
        print(f"failed: {printable(problem)}", file=sys.stderr)
    if report.failed:
        raise JobError(f"{len(report.failed)} of {report.done + report.skipped + len(report.failed)} images "
                       "could not be translated")


def _writable(out: str, rank: int) -> Path:
    """The folder, made if need be.  RequestError if nothing can be written there."""
    check_local("--out", out)
    where, probe = Path(out), Path(out) / f".i2i-write-test-{rank}"
    try:
        where.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RequestError(f"--out {out} cannot be written: {error.strerror}") from None
    return where


def _stage(word: str) -> tuple[str, str]:
    """MODEL or MODEL:ba, unless a file is called so.  -> path, direction"""
    path, colon, way = word.rpartition(":")
    return (path, way) if colon and path and way in ("ab", "ba") and not Path(word).exists() else (word, "ab")


def convert_checkpoint(file: str | None, *, ab: str | None, ba: str | None, out: str | None) -> None:
    """Convert a foreign checkpoint, or the two of a CycleGAN."""
    if bool(file) == bool(ab or ba) or bool(ab) != bool(ba):
        raise RequestError("what to import? accepted: i2i convert FILE, or i2i convert --ab FILE --ba FILE "
                           "for the two generators of a CycleGAN")
    target = Path(out) if out else Path(file).with_suffix(".safetensors") if file else Path(str(ab)).with_name("cyclegan.safetensors")
    if target.suffix != ".safetensors":
        raise RequestError(f"--out {out} must end in .safetensors")
    if file and target.resolve() == Path(file).resolve():
        raise RequestError(f"{target} would be written over; choose another --out")
    header = convert.import_generator(Path(file), target) if file else convert.import_cyclegan(Path(str(ab)),
                                                                                               Path(str(ba)),
                                                                                               target)
    name = header["recipe"]["name"]
    recipe = config.from_dict(cast(Any, registry.lookup("recipe", name)), header["recipe"]["settings"])
    ins, outs = (header["kinds"][side]["channels"] for side in "ab")
    makes = f"{ins} -> {outs} channels"
    if not recipe.sources:
        height, width = header["info"]["size"]
        makes = f"noise -> {height}x{width}, {outs} channels" + (f", {len(header['classes'])} classes"
                                                                 if header["classes"] else "")
    print(f"{header['imported']}: {name}, {recipe.generator}, {makes} -> {target}")
    if recipe.generator.options.get("norm") == "batch":
        print("batch norms use their running statistics, as test.py --eval does; "
              "without --eval it used each image's own: i2i translate --statistics image")
