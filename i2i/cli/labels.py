"""The options of i2i translate for data sets whose labels travel."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from i2i.cli.options import option
from i2i.errors import RequestError, printable

if TYPE_CHECKING:
    from i2i.cli.progress import ProgressBars
    from i2i.data.sharding import ProcessGroup
    from i2i.data.sources import Source
    from i2i.inference.carry import CarryReport, LabeledDataset

Labels = Annotated[str, option(
    "none|carry", "carry: INPUT is a data set; copy masks, annotations and all other files, too.")]
Masks = Annotated[str, option(
    "NAME,NAME", "With --labels carry: folders of masks, which are copied; by default masks, labels, gt …")]
Mix = Annotated[float | None, option(
    "SHARE", "With --labels carry: translate only this share of the images; 0.5 is half of them.  Launchers "
    "may take --mix as theirs.", "--mix", "--share")]


@dataclass(frozen=True)
class LabelOptions:
    """What the command line says of labels."""

    labels: str
    masks: str
    mix: float | None
    models: list[str]
    direction: str              # Of the first of them.

    def __post_init__(self) -> None:
        if self.labels not in ("none", "carry"):
            raise RequestError(f"--labels {self.labels} is not known; accepted: none or carry")
        if not self.active and (self.masks or self.mix is not None):
            raise RequestError(f"{'--masks' if self.masks else '--mix'} needs --labels carry")

    @property
    def active(self) -> bool:
        """Whether labels are carried."""
        return self.labels == "carry"

    def plan(self, source: Source, out: str, group: ProcessGroup, *, half: str | None, skip_existing: bool,
             suffix: str, seed: int | None, **rest: Any) -> tuple[Source, LabeledDataset | None]:
        """The images to translate, and with --labels carry all that goes with them."""
        from i2i.data.sources import is_url, output_folder
        from i2i.inference.carry_plan import Selection, plan_carry
        if not self.active:
            return source, None
        if half:
            raise RequestError(f"--labels carry --half {half}: annotations are of whole images; accepted: "
                               "one of the two")
        if group.broadcast(not skip_existing and _has_files(out)):
            raise RequestError(f"--out {out} is not empty; choose another folder for the data set, or "
                               "continue the same job with --skip-existing")
        if is_url(out) and f"{out.rstrip('/')}/".startswith(f"{source.root.rstrip('/')}/"):
            raise RequestError(f"--out {out} lies in {source.root}, all of which --labels carry copies")
        folder = output_folder("--out", out)
        dataset = plan_carry(source, folder, direction=self.direction, suffix=suffix,
                             mask_folders=self.masks, mix=self.mix, seed=seed or 0)
        return Selection(source, dataset.images), dataset

    def copy(self, dataset: LabeledDataset, out: str, seed: int | None, bars: ProgressBars) -> CarryReport:
        """Copy what goes with the images, and with --mix write where each comes from."""
        report = dataset.copy(lambda done, total: bars.update("other files", done, total))
        if self.mix is not None:
            from i2i.data.sources import output_folder
            from i2i.inference.generation_plan import sha256
            output_folder("--out", out)     # Lists a URL anew, for what has been uploaded.
            dataset.write_provenance("+".join(map(sha256, self.models)), seed or 0)
        return report


def _has_files(out: str) -> bool:
    from i2i.data.sources import is_url
    from i2i.data.sources.url import Location
    if is_url(out):
        location = Location(out.rstrip("/"))
        return location.kind() != "" and len(location.list_files()) > 0
    return Path(out).is_dir() and any(not name.startswith(".") for name in os.listdir(out))


def print_copied(report: CarryReport) -> None:
    """Print what was copied."""
    print(f"{report.copied:,} other files copied"
          + (f", {report.changed:,} of them with new names of images" if report.changed else ""))
    for note in report.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    for problem in report.failed:
        print(f"failed: {printable(problem)}", file=sys.stderr)
