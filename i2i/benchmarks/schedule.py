"""All runs of a benchmark: skip those in results.jsonl, execute the others, append a line for each."""

import functools
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from i2i.benchmarks.benchmark import BENCHMARKS, STACKED_MNIST, Benchmark, Target, build_target
from i2i.benchmarks.methods import BASELINE, METHODS
from i2i.benchmarks.train_and_score import Task, execute_and_save, measure_cost
from i2i.errors import JobError, RequestError
from i2i.files import write_text
from i2i.runs import log
from i2i.runs.folder import RunFolder

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Schedule:
    """The requested runs."""

    benchmarks: tuple[Benchmark, ...]
    methods: tuple[str, ...]
    seeds: int
    steps: int | None = None        # Overrides the benchmarks' own.
    extra: tuple[str, ...] = ()     # Settings for all methods.
    mnist: Path | None = None
    jobs: int = 1

    def tasks(self, benchmark: Benchmark, images: str = "", seeds: int | None = None) -> list[Task]:
        """All runs of a benchmark, or those of the first seeds.

        In the order of the seeds, so that an interrupted benchmark has compared all methods on the finished
        ones.  Methods that equal the baseline on this benchmark are left out, and on images those of other
        recipes, whose networks are for points.
        """
        baseline = Task(benchmark.name, BASELINE, 0, self.steps or benchmark.steps, self.extra, images)
        first = [replace(baseline, method=method) for method in self.methods
                 if METHODS[method].recipe == "gan" or benchmark.name != STACKED_MNIST.name]
        first = [task for task in first if task == baseline or task.settings != baseline.settings]
        return [replace(task, seed=seed) for seed in range(seeds or self.seeds) for task in first]


def open_folder(path: Path) -> RunFolder:
    """Create and lock the folder of a benchmark.  RequestError if it cannot be used."""
    folder = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {path} cannot be written: {error.strerror}") from None
    if any(path.iterdir()) and not (path / RESULTS).exists() and not (path / ".lock").exists():
        raise RequestError(f"--out {path} is not empty and has no {RESULTS}; choose another")
    folder.lock()
    return folder


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All complete lines of results.jsonl.  A line cut off by a crash is removed from the file."""
    file = folder / RESULTS
    lines = log.read(file)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != text:
        write_text(file, text)
    return lines


def run(schedule: Schedule, folder: Path, *, costs: bool, report: Callable[[str], None]) -> None:
    """Execute and report the runs and costs without a result.  RequestError for invalid settings, first."""
    torch.set_num_threads(1)
    for benchmark in schedule.benchmarks:
        for task in schedule.tasks(benchmark, seeds=1):
            task.configure()
    for benchmark in schedule.benchmarks:
        target = build_target(benchmark, schedule.mnist, folder)    # Stores a classifier for all processes.
        done = {(line["kind"], line["key"]) for line in read_results(folder)}
        tasks = schedule.tasks(benchmark, target.images)
        remaining = [task for task in tasks if ("run", task.key) not in done]
        for count, line in enumerate(execute_all(remaining, schedule, folder, target),
                                     len(tasks) - len(remaining) + 1):
            log.append(folder / RESULTS, line)
            report(f"{benchmark.name} {count}/{len(tasks)}: {line['method']}, seed {line['seed']}: "
                   f"{_format_result(line)}")
        for task in schedule.tasks(benchmark, target.images, seeds=1) if costs else ():
            if ("cost", task.key) not in done:
                line = measure_cost(task, target)
                log.append(folder / RESULTS, line)
                report(f"{benchmark.name}: an update of G by {task.method} takes {line['ratio']:.2f} times "
                       f"the baseline's ({line['low']:.2f} to {line['high']:.2f})")


def _format_result(line: Mapping[str, Any]) -> str:
    quality = "" if line["high_quality"] is None else f", {line['high_quality']:.1%} of high quality"
    kl = "" if line["reverse_kl"] is None else f", reverse KL {line['reverse_kl']:.2f}"
    stopped = f"; stopped: {line['stopped']}" if "stopped" in line else ""
    return f"{line['modes']} modes{quality}{kl}  ({line['seconds']:.0f} s){stopped}"


def execute_all(tasks: Sequence[Task], schedule: Schedule, folder: Path,
                target: Target) -> Iterator[dict[str, Any]]:
    """A result line for each task, in order of completion.  JobError if a process dies."""
    if schedule.jobs == 1 or len(tasks) < 2:
        for task in tasks:
            yield execute_and_save(task, folder, target)
        return
    pool = ProcessPoolExecutor(min(schedule.jobs, len(tasks)), multiprocessing.get_context("spawn"),
                               _initialize_worker)
    try:
        futures = [pool.submit(_execute_in_worker, task, folder, schedule.mnist) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    except BrokenProcessPool:
        raise JobError("a process of the benchmark was killed; run the same command to continue") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _initialize_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C is handled by the main process.
    torch.set_num_threads(1)

    def exit_with_parent() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


_worker_target = functools.cache(build_target)


def _execute_in_worker(task: Task, folder: Path, mnist: Path | None) -> dict[str, Any]:
    return execute_and_save(task, folder, _worker_target(BENCHMARKS[task.benchmark], mnist, folder))
