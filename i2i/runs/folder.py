"""Where the files of a run lie."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from i2i.errors import JobError, RequestError

_UMASK = os.umask(0)
os.umask(_UMASK)


def check_file(flag: str, file: str | None) -> None:
    """RequestError for a place where no file can be, before the work that it is to hold."""
    if file is not None and (Path(file).is_dir()
                             or any(folder.exists() and not folder.is_dir()
                                    for folder in Path(file).absolute().parents)):
        raise RequestError(f"{flag} {file} cannot be written; accepted: a file in a folder")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write to a temporary name, sync and rename: a reader sees the old file or the new one, never half of
    one. JobError tells why it could not be written; the old file stays."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)        # safetensors makes files that only their owner can read.
        os.replace(temporary, path)
        _sync_folder(path.parent)
    # safetensors reports a full disk as its own error type, with the system's words inside.
    except Exception as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise JobError(f"{path} could not be written: {error.strerror or error}") from None
        if "Error" in type(error).__name__ and "safetensor" in type(error).__module__.lower() + type(error).__name__.lower():
            raise JobError(f"{path} could not be written: {error}") from None
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunFolder:
    """Names of everything in a run folder, and the lock that keeps a second trainer out."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.model = self.path / "model.safetensors"
        self.log = self.path / "log.jsonl"
        self.speed = self.path / "speed.jsonl"
        self.metrics = self.path / "metrics.jsonl"
        self.skipped = self.path / "skipped.jsonl"
        self.collapse = self.path / "collapse.jsonl"
        self.best = self.path / "best.safetensors"
        self.verdict = self.path / "verdict.json"
        self._lock: io.IOBase | None = None

    def state(self, images: int) -> Path:
        """The training state after so many images."""
        return self.path / f"state-{images:08d}.safetensors"

    def sample(self, images: int) -> Path:
        """The sample grid after so many images."""
        return self.path / "samples" / f"{images:08d}.png"

    def states(self) -> list[Path]:
        """All training states, oldest first."""
        return sorted((path for path in self.path.glob("state-*.safetensors")
                       if path.stem[len("state-"):].isdecimal()), key=_images)

    def retire(self, images: int, keep: int) -> None:
        """Delete all but the last `keep` of the states up to this one, which is known to be whole."""
        for old in [path for path in self.states() if _images(path) <= images][:-keep]:
            old.unlink()

    def set_aside(self, state: Path) -> Path:
        """Give a state that cannot be used a name that no run looks for.  -> its new path"""
        return state.rename(state.with_suffix(".damaged"))

    def remove_partial_files(self) -> None:
        """Delete what a killed process left half written.  Only for the holder of the lock."""
        for part in [*self.path.glob(".*.part"), *self.path.glob("*/.*.part")]:
            part.unlink(missing_ok=True)

    def create(self, config: Mapping[str, Any]) -> None:
        """Make the folder and write its config; RequestError if it holds a run already or cannot be
        written."""
        if self.config.exists():
            raise RequestError(f"{self.path} holds a run already; continue it with: i2i train --resume "
                               f"{self.path}, or choose another --out")
        # Killed at its very beginning.
        if self.path.is_dir() and any(path.name != ".config.json.part" for path in self.path.iterdir()):
            raise RequestError(f"{self.path} is not empty and is no run; choose another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json("config.json", config)
        except OSError as error:
            raise RequestError(f"--out {self.path} cannot be written: {error.strerror}") from None
        except JobError as error:
            raise RequestError(str(error)) from None

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """One JSON file of the folder."""
        write_atomically(self.path / name, lambda path: _write_text(path, json.dumps(data, indent=1) + "\n"))

    def lock(self) -> None:
        """Hold the folder until the process ends; RequestError if another process trains in it.

        A POSIX lock: loader processes that outlive a killed trainer for a moment do not inherit it.
        """
        try:
            self._lock = open(self.path / ".lock", "w")     # noqa: SIM115 - held open on purpose.
        except OSError as error:
            raise RequestError(f"{self.path} cannot be written: {error.strerror}") from None
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RequestError(f"another process is training in {self.path}") from None

    def busy(self) -> bool:
        """Whether another process trains in the folder."""
        try:
            with open(self.path / ".lock") as file:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def unlock(self) -> None:
        """Let other processes train in the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_config(self) -> dict[str, Any]:
        """The config the run was started with; RequestError if there is none."""
        if not self.path.exists():
            raise RequestError(f"{self.path} does not exist; accepted: a run folder made by i2i train")
        try:
            return json.loads(self.config.read_text())
        except FileNotFoundError:
            raise RequestError(f"{self.path} is no run folder: it has no config.json") from None
        except (OSError, ValueError, RecursionError) as error:
            raise RequestError(f"{self.config} cannot be read: {error}") from None


def _images(state: Path) -> int:
    return int(state.stem[len("state-"):])


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
