"""Translate what comes into a folder, until it is interrupted."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from i2i.data.sources import Folder
from i2i.errors import RequestError
from i2i.inference.carry_plan import Selection
from i2i.inference.translate import translate
from i2i.inference.translation_report import TranslationReport, merge_reports
from i2i.inference.translator import Translator

INTERVAL = 1.0      # Seconds between two looks at the folder.


class _Some(Selection):
    """Some of the images of a folder, whose other files are not looked at."""

    def other_files(self, on_error: Callable[[str], None]) -> Iterator[str]:
        return iter(())


def watch(model: Translator, folder: Folder, out: Path, *, tell: Callable[[TranslationReport], None],
          suffix: str = "", interval: float = INTERVAL, **options: Any) -> TranslationReport:
    """Translate the images of a folder, and those that come or change later, until Ctrl-C.

    An image is read when its size and times are the same in two looks at the folder, as one that changes is
    still being written; and again when it has changed since.

    Args:
        tell: called with the outcome of each look that found something.
        suffix: as of `translate`.
        interval: seconds between two looks.
        options: more of `translate`.

    Returns:
        The outcome, of each image the last.  RequestError if results would come into the folder itself.
    """
    results = os.path.relpath(os.path.realpath(out), os.path.realpath(folder.path)).replace(os.sep, "/")
    if results == ".":
        raise RequestError(f"--out {out} is the folder that is watched; accepted: another, also within it")
    total, last = TranslationReport(), TranslationReport()
    failed: dict[str, str] = {}         # Input -> line.
    owners: dict[str, str] = {}         # Result -> input.
    seen: dict[str, str] = {}
    read: dict[str, str] = {}

    def keep(report: TranslationReport, _: int) -> None:        # Of a job that may be interrupted.
        nonlocal last
        last = report

    with suppress(KeyboardInterrupt):
        while True:
            before, seen = seen, _identities(folder, results)
            ready = [name for name in seen if seen[name] == before.get(name) != read.get(name)]
            for suffix_of_inputs in sorted({PurePosixPath(name).suffix for name in ready}):
                names = [name for name in ready if name.endswith(suffix_of_inputs)]
                failed = {name: line for name, line in failed.items() if name not in names}
                last = _translate(model, folder, names, out, suffix, owners, progress=keep, **options)
                tell(last)
                failed |= {name: line for name in names for line in last.failed
                           if line.startswith((f"{name}: ", f"{folder.path_of(name)}: "))}
                read |= {name: seen[name] for name in names}
                total = merge_reports([total, last])
                last = TranslationReport()
            time.sleep(interval)
    total, interrupted = merge_reports([total, last]), last.failed
    total.failed = sorted([*failed.values(), *interrupted])
    return total


def _identities(folder: Folder, results: str) -> dict[str, str]:
    """What says whether an image has changed, by name; not of images below the folder of results."""
    found = {}
    for name in folder.list_images():
        if not name.startswith(f"{results}/"):
            with suppress(OSError):     # It is gone again.
                found[name] = folder.identity(name)
    return found


def _translate(model: Translator, folder: Folder, names: list[str], out: Path, suffix: str,
               owners: dict[str, str], **options: Any) -> TranslationReport:
    """Translate images of one extension; a request that would be refused fails for these alone."""
    failed = []
    for name in names:
        result = str(PurePosixPath(name).with_suffix(suffix)) if suffix else name
        if owners.setdefault(result, name) != name:
            failed.append(f"{name}: its result would replace that of {owners[result]}, {result}")
    names = [name for name in names if name in set(owners.values())]
    try:
        report = translate(model, _Some(folder, sorted(names)), out, suffix=suffix, **options)
    except RequestError as error:
        report = TranslationReport(failed=[f"{name}: {error}" for name in names])
    report.failed += failed
    return report
