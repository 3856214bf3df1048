"""Lives of a training process that end where a test wants, in children of one process that has imported torch."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import i2i
from i2i.runs.folder import RunFolder
from i2i.training import train as training
from i2i.training import trainer as engine
from i2i.training.callbacks import embedding
from i2i.training.memory import MemoryEstimate

ROOT = Path(i2i.__file__).parent
ROOMS = {           # Whose lines are counted: all of a room's, or those by which a file of the run folder comes to be.
    "engine": (f"{ROOT / 'engine'}{os.sep}",), "runs": (f"{ROOT / 'runs'}{os.sep}",), "saves": (f"{ROOT / 'runs' / 'checkpoint.py'}",)}
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.lives_begin"])


@dataclass(frozen=True)
class Work:
    """What is trained."""

    words: tuple[str, ...]      # A recipe and settings.
    data: Path


class Fate:
    """Kills its process, as kill -9 does, when it is about to execute the n-th line of a room; so the same n is the same moment."""

    def __init__(self, room: str, n: int) -> None:
        self.room, self.n = room, n
        self.counts = dict.fromkeys(ROOMS, 0)

    def __call__(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        rooms = [room for room, paths in ROOMS.items() if frame.f_code.co_filename.startswith(paths)]
        return functools.partial(self.line, rooms) if rooms else None

    def line(self, rooms: list[str], frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        for room in rooms:
            self.counts[room] += event == "line"
            if room == self.room and self.counts[room] == self.n:
                os.kill(os.getpid(), signal.SIGKILL)
        return functools.partial(self.line, rooms)

    def rule(self) -> None:
        """From now on, in all threads."""
        threading.settrace(self)
        sys.settrace(self)


def train(work: Work, out: Path) -> None:
    """Begin or continue: by the same command."""
    recipe, *words = work.words
    i2i.train(recipe, *words, data=work.data, out=out, device="cpu")


def _live(work: Work, out: Path, room: str, n: int, counts: Any) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)        # Of the loader processes, as anywhere else.
    engine.EVALUATION_SHARE = 1e9          # Evaluations do not depend on the time.
    training.best_embedding = lambda device, tell: embedding.thumbnails(embedding.THUMBNAIL_SIZE)      # As in the test process: features take seconds.
    training.memory_estimate = lambda job, world_size=1: MemoryEstimate(0, 0, 0)     # Costs half a second, and writes nothing.
    fate = Fate(room, n)
    fate.rule()
    train(work, out)
    counts[:] = list(fate.counts.values())


def live(work: Work, out: Path, *, room: str = "", n: int = 0, after: int = -1, seconds: float = 0.0) -> tuple[int, dict[str, int]]:
    """Train until the end, or until the process is killed at the n-th line of a room, or so many seconds after there is a state of `after` images.

    -> exit code, lines of each room
    """
    counts = _CONTEXT.Array("q", len(ROOMS))
    process = _CONTEXT.Process(target=_live, args=(work, out, room, n, counts))
    process.start()
    if after >= 0:
        while process.is_alive() and not any(images_of(state) >= after for state in RunFolder(out).states()):
            process.join(0.001)
        process.join(seconds)
        process.kill()
    process.join()
    return int(process.exitcode or 0), dict(zip(ROOMS, counts, strict=True))


def images_of(state: Path) -> int:
    """How many images had been seen."""
    return int(state.stem.split("-")[1])


def begin(work: Callable[..., None], *details: object) -> multiprocessing.process.BaseProcess:
    """A process that does this, from the one that has imported torch."""
    process = _CONTEXT.Process(target=_begun, args=(work, details))
    process.start()
    return process


def _begun(work: Callable[..., None], details: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)        # Of the loader processes, as anywhere else.
    work(*details)


def ask(question: Callable[..., Any], *details: object) -> Any:
    """What a function says in a process of its own."""
    mine, other = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=functools.partial(_answer, other, question, details))
    process.start()
    other.close()
    answer = mine.recv()
    process.join()
    return answer


def _answer(pipe: Any, question: Callable[..., Any], details: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    pipe.send(question(*details))
