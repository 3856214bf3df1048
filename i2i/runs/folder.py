"""The run folder: names of its files, its config and its lock."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from i2i.errors import JobError, RequestError
from i2i.files import try_lock, write_text


class RunFolder:
    """Paths of the files in a run folder, and its lock against a second trainer."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config, self.verdict = self.path / "config.json", self.path / "verdict.json"
        self.model, self.best = self.path / "model.safetensors", self.path / "best.safetensors"
        self.log, self.speed, self.metrics, self.skipped, self.collapse = (
            self.path / f"{name}.jsonl" for name in ("log", "speed", "metrics", "skipped", "collapse"))
        self._lock: FileLock | None = None

    def state(self, images: int) -> Path:
        """Path of the training state at an image count."""
        return self.path / f"state-{images:08d}.safetensors"

    def sample(self, images: int) -> Path:
        """Path of the sample grid at an image count."""
        return self.path / "samples" / f"{images:08d}.png"

    def states(self) -> list[Path]:
        """All training states, oldest first."""
        return self._numbered("state")

    def model_at(self, images: int) -> Path:
        """Path of the model that is kept of the checkpoint after so many images."""
        return self.path / f"model-{images:08d}.safetensors"

    def models(self) -> dict[int, Path]:
        """The models of checkpoints that are kept, by images, oldest first."""
        return {_images(path): path for path in self._numbered("model")}

    def _numbered(self, kind: str) -> list[Path]:
        return sorted((path for path in self.path.glob(f"{kind}-*.safetensors")
                       if path.stem[len(kind) + 1:].isdecimal()), key=_images)

    @property
    def images(self) -> int:
        """Images seen at the newest state; 0 if there is none."""
        return max(map(_images, self.states()), default=0)

    def retire(self, images: int, keep: int) -> None:
        """Delete all but the last `keep` states up to this one, which is known to be undamaged."""
        for old in [path for path in self.states() if _images(path) <= images][:-keep]:
            old.unlink()

    def retire_models(self, images: int, keep: int) -> None:
        """Delete all but the last `keep` models of checkpoints up to this one."""
        for old in [path for count, path in self.models().items() if count <= images][:-keep]:
            old.unlink(missing_ok=True)

    def partial_files(self) -> list[Path]:
        """Temporary files that a killed process left behind."""
        return [path for pattern in (".*.part", "*/.*.part", ".tmp*")       # .tmp*: of safetensors.
                for path in self.path.glob(pattern)]

    def create(self, config: Mapping[str, Any]) -> None:
        """Make the folder and write its config.  RequestError if it contains a run or cannot be written."""
        if self.config.exists():
            raise RequestError(f"{self.path} holds a run already; continue it with: i2i train --resume "
                               f"{self.path}, or choose another --out")
        # A partial config is left by a run that was killed at its very beginning.
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
        """Write a JSON file of the folder."""
        write_text(self.path / name, json.dumps(data, indent=1) + "\n")

    def lock(self) -> None:
        """Lock the folder until the process ends.  RequestError if another process trains in it."""
        try:
            self._lock = try_lock(self.path / ".lock")
        except OSError as error:
            raise RequestError(f"{self.path} cannot be written: {error.strerror}") from None
        if self._lock is None:
            raise RequestError(f"another process is training in {self.path}")

    def is_locked(self) -> bool:
        """Whether another process trains in the folder."""
        file = self.path / ".lock"
        try:
            lock = file.exists() and try_lock(file)
        except OSError:
            return True
        if lock:
            lock.release()
        return lock is None

    def unlock(self) -> None:
        """Let other processes train in the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def read_config(self) -> dict[str, Any]:
        """The config that the run was started with.  RequestError if there is none."""
        if not self.path.exists():
            raise RequestError(f"{self.path} does not exist; accepted: a run folder made by i2i train")
        try:
            return json.loads(self.config.read_bytes())
        except FileNotFoundError:
            raise RequestError(f"{self.path} is no run folder: it has no config.json") from None
        except (OSError, ValueError, RecursionError) as error:
            raise RequestError(f"{self.config} cannot be read: {error}") from None


def split_run(text: str | Path) -> tuple[str, str]:
    """The folder, and what follows the last @: images, "best" or "last"; "" if that is part of a path."""
    run, at, which = str(text).rpartition("@")
    return (run, which) if run and at and not Path(text).exists() else (str(text), "")


def _images(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])
