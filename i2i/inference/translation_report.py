"""The outcome of a folder job."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class TranslationReport:
    """The outcome of a folder job."""

    done: int = 0
    skipped: int = 0                                                # Their results existed already.
    failed: list[str] = field(default_factory=list)                 # "name: reason"
    notes: dict[str, str] = field(default_factory=dict)             # What a result lacks -> the first input.
    left_out: str = ""                                              # Files with images that were no inputs.

    def add_notes(self, notes: Iterable[tuple[str, str]]) -> None:
        """Add (note, input) pairs."""
        for note, name in notes:
            self.notes[note] = min(name, self.notes.get(note, name))


def merge_reports(reports: Iterable[TranslationReport]) -> TranslationReport:
    """The outcome of all processes."""
    merged = TranslationReport()
    for each in reports:
        merged.done += each.done
        merged.skipped += each.skipped
        merged.left_out = merged.left_out or each.left_out
        merged.failed += each.failed
        merged.add_notes(each.notes.items())
    merged.failed.sort()
    return merged
