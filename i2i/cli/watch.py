"""i2i translate --watch."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

from i2i.cli.options import option, writable_folder
from i2i.errors import RequestError, printable

if TYPE_CHECKING:
    from i2i.data.sharding import ProcessGroup
    from i2i.inference.translation_report import TranslationReport
    from i2i.inference.translator import Translator

Watch = Annotated[bool, option(None, "Go on with what comes into the folder INPUT, until Ctrl-C.", "--watch")]


def watch_folder(model: Translator, source: str, out: str, spread: str | None, max_pixels: int | None,
                 labels: bool, *, group: ProcessGroup, **options: Any
                 ) -> tuple[TranslationReport, str, float]:
    """Translate what is in a folder and comes into it, until Ctrl-C: the outcome, `out` and seconds."""
    from i2i.data.sources import Folder, open_source
    from i2i.inference.watch import watch
    images = open_source(source, max_pixels=max_pixels)
    if type(images) is not Folder or images.manifest_name or group.world_size > 1:
        raise RequestError(f"--watch is for a folder on this machine and one process, not {source}")
    if labels:
        raise RequestError("--labels is for a data set that is there; accepted: no --watch")
    folders = writable_folder("--out", out), writable_folder("--spread", spread) if spread else None
    print(f"watching {source}; Ctrl-C ends it", file=sys.stderr)
    start = time.monotonic()
    report = watch(model, images, folders[0], tell=_print_look, spread=folders[1], **options)
    return report, out, time.monotonic() - start


def _print_look(report: TranslationReport) -> None:
    """Print what one look at a folder brought."""
    if report.done:
        print(f"{report.done:,} translated", flush=True)
    for problem in report.failed:
        print(f"failed for now: {printable(problem)}", file=sys.stderr, flush=True)
