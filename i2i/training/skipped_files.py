"""Training files that could not be read: skipped.jsonl and messages about it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from i2i.errors import printable
from i2i.runs import log
from i2i.training.distributed import Runtime

MAX_MESSAGES = 10       # Files named one by one; all are in skipped.jsonl.


class SkippedFiles:
    """Collects skipped files between log lines and writes each once, whichever process met it."""

    def __init__(self, path: Path, runtime: Runtime, warn: Callable[[str], None]) -> None:
        self.path, self.runtime, self.warn = path, runtime, warn
        self._pending: list[dict[str, Any]] = []

    def add(self, images: int, file: str, reason: str) -> None:
        """The step that ends at so many images goes without a file."""
        self._pending.append({"images": images, "file": file, "reason": reason})

    def write(self) -> None:
        """Append what is new to the file, in the order of steps.  Call it in all processes."""
        entries, self._pending = self.runtime.all_gather_objects(self._pending), []
        if not entries or not self.runtime.is_main_process:
            return
        known = {entry["file"] for entry in log.read(self.path)}
        for entry in sorted(entries, key=lambda entry: (entry["images"], entry["file"])):
            if entry["file"] in known:
                continue
            known.add(entry["file"])
            log.append(self.path, entry)
            if len(known) <= MAX_MESSAGES:
                more = f"; all that follow are in {self.path}" if len(known) == MAX_MESSAGES else ""
                self.warn(printable(f"skipped: {entry['file']}: {entry['reason']}") + more)
