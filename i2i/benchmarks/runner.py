"""All runs of a bench: what is done already, the rest in processes of one thread each, a line for each in
results.jsonl."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from i2i.benchmarks import running, trials
from i2i.benchmarks.running import Task
from i2i.benchmarks.trials import Benchmark, Target
from i2i.errors import I2IError, JobError, RequestError
from i2i.runs import log
from i2i.runs.folder import RunFolder, write_atomically

RESULTS = "results.jsonl"
Log = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    trials: tuple[Benchmark, ...]
    remedies: tuple[str, ...]
    seeds: int
    steps: int | None = None        # Instead of each test's own.
    extra: tuple[str, ...] = ()
    mnist: Path | None = None
    jobs: int = 1

    def tasks(self, trial: Benchmark, seeds: int | None = None, pictures: str = "") -> list[Task]:
        """Every run of one test; with `seeds=1` one of each remedy."""
        return running.tasks(trial, self.remedies, seeds or self.seeds, self.steps, self.extra, pictures)


def open_folder(path: Path) -> RunFolder:
    """The bench's folder, held against a second bench.  RequestError if it cannot be."""
    folder = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {path} cannot be written: {error.strerror}") from None
    if any(path.iterdir()) and not (path / RESULTS).exists() and not (path / ".lock").exists():
        raise RequestError(f"--out {path} is not empty and holds no {RESULTS}; choose another")
    folder.lock()
    return folder


def put(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    def write(part: Path) -> None:
        part.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def results(path: Path) -> list[dict[str, Any]]:
    """All whole lines.  A line that a kill cut off is dropped from the file too, so that the next does not
    follow on it."""
    file = path / RESULTS
    lines = log.read(file)
    whole = "".join(json.dumps(entry) + "\n" for entry in lines)
    if file.exists() and file.read_text() != whole:
        put(file, whole)
    return lines


def run(order: Order, path: Path, *, costs: bool, tell: Log) -> None:
    """Do what is not done, then measure costs that are not measured.  JobError or RequestError of the first
    run that cannot be."""
    torch.set_num_threads(1)
    for trial in order.trials:
        for task in order.tasks(trial, 1):
            running.settle(task)            # A wrong word is found before anything is run.
    for trial in order.trials:
        # Also its classifier, once, before there are other processes.
        target = trials.target(trial, order.mnist, path)
        known = {(line["kind"], line["key"]) for line in results(path)}
        tasks = order.tasks(trial, pictures=target.pictures)
        todo = [task for task in tasks if ("run", task.key) not in known]
        every = len(tasks)
        for count, line in enumerate(run_tasks(todo, order, path, target), every - len(todo) + 1):
            log.append(path / RESULTS, line)
            tell(f"{trial.name} {count}/{every}: {line['remedy']}, seed {line['seed']}: {in_words(line)}")
        for task in order.tasks(trial, 1, target.pictures) if costs else ():
            if ("cost", task.key) not in known:
                line = running.cost(task, target)
                log.append(path / RESULTS, line)
                tell(f"{trial.name}: a round of {task.remedy} takes {line['ratio']:.2f} of a plain one "
                     f"({line['low']:.2f} to {line['high']:.2f})")


def in_words(line: dict[str, Any]) -> str:
    """A result for the person who waits."""
    share = "" if line["high_quality"] is None else f", {line['high_quality']:.1%} of high quality"
    kl = "" if line["reverse_kl"] is None else f", reverse KL {line['reverse_kl']:.2f}"
    return f"{line['modes']} modes{share}{kl}  ({line['seconds']:.0f} s)" + (f"; stopped: {line['stopped']}"
                                                                             if "stopped" in line else "")


# ---------------------------------------------------------------------------------------------- processes

def run_tasks(todo: Sequence[Task], order: Order, path: Path, target: Target) -> Iterator[dict[str, Any]]:
    """A line for each task, in the order in which they end."""
    if order.jobs == 1 or len(todo) < 2:
        for task in todo:
            yield one(task, path, target)
        return
    context = multiprocessing.get_context("spawn")      # A fork would share locks of torch's threads.
    waiting, busy = iter(todo), list[Any]()      # Ends of pipes, one for each process.
    for _ in range(min(order.jobs, len(todo))):
        ours, theirs = context.Pipe()
        context.Process(target=work, args=(theirs, order, path), daemon=True).start()
        theirs.close()                                  # So that the end of a process is the end of its pipe.
        ours.send(next(waiting))
        busy.append(ours)
    while busy:
        pipe: Any
        for pipe in wait(busy):
            line = receive(pipe)
            if (following := next(waiting, None)) is not None:
                pipe.send(following)
            else:
                busy.remove(pipe)
                pipe.close()
            yield line


def receive(pipe: Connection) -> dict[str, Any]:
    """What a process sent; JobError if it died, and the error it had if it had one."""
    try:
        line = pipe.recv()
    except EOFError:
        raise JobError("a process of the bench was ended from outside; the same command goes on from here") from None
    if isinstance(line, I2IError):
        raise line
    return line


def work(pipe: Connection, order: Order, path: Path) -> None:
    """The other side: tasks in, lines out, until the pipe is closed, as it is also when the leading process
    has died."""
    # Ctrl-C is for the leading process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    targets: dict[str, Target] = {}
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        if task.trial not in targets:
            targets[task.trial] = trials.target(trials.BENCHMARKS[task.trial], order.mnist, path)
        try:
            pipe.send(one(task, path, targets[task.trial]))
        except I2IError as error:
            pipe.send(error)
        except BrokenPipeError:
            return


def one(task: Task, path: Path, target: Target) -> dict[str, Any]:
    """Carry out a task; of the first seed the samples are kept, to be looked at."""
    line, samples = running.execute(task, target)
    if task.seed == 0:
        running.keep_samples(running.samples_file(path, task), samples[:running.SHOWN])
    return line
