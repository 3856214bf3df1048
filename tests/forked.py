"""Commands and trainings in processes forked from one that has imported torch, which may be killed where a test wants."""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import i2i
from i2i import files, registry
from i2i.cli import app
from i2i.runs.folder import RunFolder
from i2i.training import train as training
from i2i.training.callbacks import evaluation, fixed_inputs
from i2i.training.memory import MemoryEstimate

FAILPOINTS = sorted({name for path in Path(i2i.__file__).parent.rglob("*.py") for name in re.findall(r'failpoint\("([a-z-]+)"\)', path.read_text())})
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.forked_preload"])


@dataclass(frozen=True)
class Work:
    """What is trained."""

    words: tuple[str, ...]      # A recipe and settings.
    data: Path


class Kill:
    """Kills its process, as kill -9 does, when it reaches a failpoint for the n-th time; so the same n is the same moment."""

    def __init__(self, failpoint: str, n: int) -> None:
        self.failpoint, self.n = failpoint, n
        self.counts = dict.fromkeys(FAILPOINTS, 0)

    def __call__(self, name: str) -> None:
        self.counts[name] += 1
        if name == self.failpoint and self.counts[name] == self.n:
            os.kill(os.getpid(), signal.SIGKILL)


def train(work: Work, out: Path) -> None:
    """Begin or continue: by the same command."""
    recipe, *words = work.words
    i2i.train(recipe, *words, data=work.data, out=out, device="cpu")


def _live(work: Work, out: Path, failpoint: str, n: int, counts: Any) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)        # Of the loader processes, as anywhere else.
    evaluation.EVALUATION_SHARE = 1e9          # Evaluations do not depend on the time.
    training.best_embedding = lambda device, tell, *rest: fixed_inputs.thumbnails(fixed_inputs.THUMBNAIL_SIZE)      # As in the test process: features take seconds.
    training.memory_estimate = lambda job, world_size=1: MemoryEstimate(0, 0, 0, 0, 0)     # Costs half a second, and writes nothing.
    files.on_failpoint = kill = Kill(failpoint, n)
    train(work, out)
    counts[:] = list(kill.counts.values())


def live(work: Work, out: Path, *, failpoint: str = "", n: int = 0, after: int = -1, seconds: float = 0.0) -> tuple[int, dict[str, int]]:
    """Train until the end, or until the process is killed when it reaches a failpoint for the n-th time, or so many seconds after there is a state
    of `after` images.

    -> exit code, how often each failpoint was reached
    """
    counts = _CONTEXT.Array("q", len(FAILPOINTS))
    process = _CONTEXT.Process(target=_live, args=(work, out, failpoint, n, counts))
    process.start()
    if after >= 0:
        while process.is_alive() and not any(images_of(state) >= after for state in RunFolder(out).states()):
            process.join(0.001)
        process.join(seconds)
        process.kill()
    process.join()
    return int(process.exitcode or 0), dict(zip(FAILPOINTS, counts, strict=True))


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


def run(*words: object, cwd: Path, path: Path | None = None, code: str = "") -> subprocess.CompletedProcess[str]:
    """What a command line, or Python code, does in a process of its own, where packages in the folder `path` are installed."""
    with tempfile.TemporaryDirectory() as folder:
        process = _CONTEXT.Process(target=_run, args=([*map(str, words)], code, cwd, path, Path(folder)))
        process.start()
        process.join(300)
        process.kill()      # If it has not ended.
        process.join()
        return subprocess.CompletedProcess(words, int(process.exitcode or 0), *((Path(folder) / name).read_text() for name in ("out", "err")))


def _run(words: list[str], code: str, cwd: Path, path: Path | None, outputs: Path) -> None:
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(outputs / name, os.O_WRONLY | os.O_CREAT), descriptor)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)        # Of the loader processes, as anywhere else.
    os.environ.pop("COLUMNS", None)         # As in the test process.
    os.chdir(cwd)
    sys.path[:0] = ["", *map(str, filter(None, [path]))]
    registry._Plugins.installed_loaded = False      # As in a process that has just been started.
    if code:
        return exec(code, {"__name__": "__main__"})
    sys.exit(app.run(words))


def command(*words: object) -> None:
    """A command line, for `begin`."""
    sys.exit(app.run([*map(str, words)]))


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
