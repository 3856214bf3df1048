"""The loader alone: images per second at 64 pixels, by where decoded images are kept and by how many
processes read.

Every combination reads the bundled drawings from its own stream, in turn with the others in one process,
after an epoch in which caches fill and after the batches that were read ahead have been taken; so what is
timed is reading.  A pair counts as one.

    python bench/loader.py
    python bench/loader.py pix2pix --batch 64 --workers 0 4 8
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from itertools import product

import torch

from i2i.training import job as jobs
from i2i.training import train as training
from i2i.training.distributed import Runtime

LOADS = {"dcgan": "fluent3d-64", "pix2pix": "openmoji-64", "cyclegan": "noto-twemoji-64"}   # And data.
CACHES = ("off", "memory", "disk")


def took(stream, count):
    """Seconds for so many batches."""
    start = time.perf_counter()
    for _ in range(count):
        next(stream)
    return time.perf_counter() - start


def measure(load, options):
    """-> (cache, workers) -> images per second, one figure a round; and how many there are"""
    runtime = Runtime(device="cpu")
    rates = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        streams = {}
        for cache, workers in product(CACHES, options.workers):
            job = jobs.prepare(load,
                               [f"train.batch_size={options.batch}", f"train.num_workers={workers}",
                                f"data.cache={cache}", "data.size=64",
                                      f"data.cache_folder={folder}"], data=LOADS[load])
            stream = streams[cache,
                             workers] = stack.enter_context(closing(training.job_batches(job, runtime, 0)))
            took(stream, -(-len(job.splits["train"]) // options.batch) if cache != "off" else 1)
            rates[cache, workers] = []
        for _ in range(options.rounds):
            for (cache, workers), stream in streams.items():
                took(stream, 1 + max(1, workers) * job.train.prefetch_factor)
                start, count = time.perf_counter(), 0
                while count < options.least or time.perf_counter() - start < options.seconds:
                    next(stream)
                    count += 1
                rates[cache, workers].append(count * options.batch / (time.perf_counter() - start))
    return rates, job.splits["train"].description


def main():
    """Print one table for each load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loads", nargs="*", default=[*LOADS])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="at least so long, for each figure")
    parser.add_argument("--least", type=int, default=8, help="batches for each figure")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}, "
          f"{options.rounds} rounds; images or pairs "
          "per second, median and quartiles")
    for load in options.loads:
        rates, counted = measure(load, options)
        print(f"\n{load}: 64 pixels, {counted}")
        print(f"{'cache':<8}" + "".join(f"{f'{workers} workers':>28}" for workers in options.workers))
        for cache in CACHES:
            cells = []
            for workers in options.workers:
                low, middle, high = statistics.quantiles(rates[cache, workers], n=4)
                cells.append(f"{middle:>10,.0f} ({low:,.0f} … {high:,.0f})")
            print(f"{cache:<8}" + "".join(f"{cell:>28}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
