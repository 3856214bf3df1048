"""What the studio works with: the models, runs and data it offers by name, command lines, private folders."""

import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from i2i.cli.next_steps import find_work
from i2i.errors import I2IError, RequestError
from i2i.files import folder_of_process, remove_stale

MAX_BYTES = 100_000_000     # Of a file that is uploaded.
MAX_FILES = 1000            # Of a batch, in zips too.
MAX_UNPACKED = 2_000_000_000    # Bytes of a batch.
_lock = threading.Lock()        # Of models, which one command at a time uses, and of stdout.


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command line."""

    code: int
    text: str


@dataclass(frozen=True)
class Offer:
    """A model that is offered: the directions in which it translates, its classes, and its training size."""

    directions: tuple[str, ...]
    classes: tuple[str, ...]
    size: tuple[int, int]


class Workspace:
    """A folder with runs, data and models, and a private folder for uploads and results.

    Everything is chosen by the names listed here; no path comes from the browser.

    Args:
        where: a folder, a run folder or a model.  RequestError if it is none.
    """

    def __init__(self, where: str = ".") -> None:
        from i2i.inference.model_file import read_directions
        self.folder, self.given = Path(where), list[str]()
        if not self.folder.is_dir():
            read_directions(where)      # Raises if there is no such model.
            self.folder, self.given = Path(), [where]
        self.private = folder_of_process()
        self.link, self.judged = "", Path()         # With --share-lan: to the page that people judge, and it.

    def runs(self) -> dict[str, Path]:
        """Run folders by name, the newest first."""
        return {str(path): path for path in find_work(self.folder)[0]}

    def data(self) -> list[str]:
        """Data sets: those in the folder, and bundled ones."""
        from i2i.data.sources.factory import bundled_datasets
        return [*map(str, find_work(self.folder)[1]), *bundled_datasets()]

    def models(self, translate: bool | None = None) -> dict[str, Offer]:
        """Models by name; with `translate`, those that do, or those from noise."""
        from i2i.inference.bundled_models import bundled_models
        from i2i.inference.model_file import read_directions
        runs, _, files = find_work(self.folder)
        found = dict[str, Offer]()
        for name in [*self.given, *map(str, runs), *map(str, files), *bundled_models()]:
            with suppress(I2IError, OSError):       # A run that has no model yet, or a file that is none.
                header, directions = read_directions(name)
                if translate in (None, bool(directions)):
                    height, width = header["info"]["size"]
                    found[name] = Offer(directions, tuple(header.get("classes", ())), (height, width))
        return found

    def new_folder(self) -> Path:
        """A private folder for one action; those of earlier days are removed."""
        remove_stale(self.private, "job-*")
        return Path(tempfile.mkdtemp(prefix="job-", dir=self.private))

    def run(self, words: Sequence[str]) -> Outcome:
        """Run a command line in this process, one at a time, with models that stay loaded."""
        from i2i.cli import app
        output = io.StringIO()
        with _lock, redirect_stdout(output), redirect_stderr(output):
            code = app.run(list(words))
        return Outcome(code, self.without_paths(output.getvalue()))

    def stream(self, words: Sequence[str]) -> Iterator[Outcome]:
        """Run a command line as a process, which ends with the generator; yields what it printed so far."""
        process = subprocess.Popen([sys.executable, "-m", "i2i.cli", *words], text=True, errors="replace",
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        text = ""
        try:
            for line in process.stdout or ():
                text += line
                yield Outcome(0, self.without_paths(text))
            yield Outcome(process.wait(), self.without_paths(text))
        finally:
            process.terminate()
            process.wait()

    def without_paths(self, text: str) -> str:
        """Output of a command without the paths of private folders."""
        return re.sub(re.escape(str(self.private)) + r"/job-[^/\s]*/?(in/)?", "", text).strip()


def reason(outcome: Outcome) -> str:
    """Why a command failed: the line on the first failure, or of the error."""
    lines = [line for line in outcome.text.splitlines() if line.startswith(("failed: ", "error: "))]
    return lines[0].partition(": ")[2] if lines else outcome.text[-300:] or f"exit code {outcome.code}"


def shown(words: Sequence[str]) -> str:
    """A command line to type."""
    return "i2i " + shlex.join(words)


def shown_python(words: Sequence[str]) -> str:
    """The Python lines that run a command line in one's own process."""
    listed = ",\n         ".join(repr(word) for word in words)
    return f"from i2i.cli import app\n\napp.run([{listed}])      # 0 if it is done"


def safe_name(name: str) -> str:
    """A name for an uploaded image: letters, digits and ` ._()-` of its last part, with an extension."""
    from i2i.data.sources.base import is_image
    from i2i.inference import video
    name = re.sub(r"[^\w .()-]", "_", name.replace("\\", "/").rpartition("/")[2]).lstrip(" .-")[-100:]
    known = is_image(name) and Path(name).suffix.lower() not in video.INPUTS
    return name if known else f"{name or 'image'}.png"


def collect(files: Sequence[Path], folder: Path) -> Path:
    """Copy uploaded images, or one zip of them, into a folder.  RequestError for too many or too large."""
    folder.mkdir()
    if len(files) == 1 and files[0].suffix.lower() == ".zip":
        check_zip(files[0])
        return Path(shutil.copy(files[0], folder / "images.zip"))
    if len(files) > MAX_FILES:
        raise RequestError(f"{len(files):,} files; accepted: at most {MAX_FILES:,} at once, or a zip of them")
    for number, file in enumerate(files):
        if file.stat().st_size > MAX_BYTES:
            raise RequestError(f"{file.name} is larger than {MAX_BYTES // 1_000_000} MB")
        name = safe_name(file.name)
        shutil.copy(file, folder / (f"{number}-{name}" if (folder / name).exists() else name))
    return folder / safe_name(files[0].name) if len(files) == 1 else folder


def check_zip(file: Path) -> None:
    """RequestError unless this is a zip of a bearable number and size of files."""
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = [member.file_size for member in archive.infolist()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise RequestError(f"{file.name} cannot be read as a zip: {error}") from None
    if len(sizes) > MAX_FILES or max(sizes, default=0) > MAX_BYTES or sum(sizes) > MAX_UNPACKED:
        raise RequestError(f"{file.name} holds {len(sizes):,} files of {sum(sizes) / 1e6:,.0f} MB; accepted: "
                           f"at most {MAX_FILES:,} of {MAX_BYTES / 1e6:.0f} MB each, "
                           f"{MAX_UNPACKED / 1e6:,.0f} MB in all")


def pack(folder: Path, file: Path) -> Path:
    """All files of a folder as a zip, stored, as images are compressed already."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return file
