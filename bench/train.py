"""Training steps of the engine against the loops that everyone clones (bench/plain.py): images/s, memory, use
of the device's arithmetic.

All variants run in turn on the same batches in one process, and ratios are taken round by round, so that a
machine whose speed drifts does not decide them.  Weights are the same at the start, and the losses of the
first step are compared.  StyleGAN2's regularizers are due in some steps only: steps of each kind are timed
and weighted by how often they come.  Memory, and the time spent waiting for batches that are read from PNG
files, are measured in a process of their own for each variant.

    python bench/train.py pix2pix cyclegan dcgan stylegan2-64 stylegan2-256
    python bench/train.py pix2pix --with train.precision=bf16 train.memory_format=channels-last --device cuda
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from i2i.config import parse_assignments
from i2i.data.config import DataConfig
from i2i.recipes.base import DataInfo
from i2i.registry import lookup
from i2i.runs.folder import RunFolder
from i2i.seeding import seed_step
from i2i.training import job as jobs
from i2i.training import train as training
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.memory import peak_memory
from i2i.training.trainer import Trainer

# name -> recipe or preset, pixels, default batch, the plain loop, (step, weight) of each kind of step
LOADS = {
    "pix2pix": ("pix2pix", 256, 1, plain.Pix2Pix, ((1, 1.0),)),
    "cyclegan": ("cyclegan", 256, 1, plain.CycleGAN, ((1, 1.0),)),
    "dcgan": ("dcgan", 64, 32, plain.DCGAN, ((1, 1.0),)),
    "stylegan2-64": ("stylegan2", 64, 16, plain.StyleGAN2, ((0, 1 / 16), (1, 12 / 16), (4, 3 / 16))),
    "stylegan2-256": ("stylegan2", 256, 4, plain.StyleGAN2, ((0, 1 / 16), (1, 12 / 16), (4, 3 / 16)))}
# Settings that make our network the plain one: its dropout is not where the paper has it.
ALIKE = {"pix2pix": ("generator.dropout_skip=1",)}
ALONE = 6       # Steps of a process that measures memory and waiting.


def engine(load, words, options):
    """The trainer that `i2i train` uses, with the settings of a variant."""
    name, size, batch, _, _ = LOADS[load]
    recipe_name, preset = jobs.recipe_or_preset(name)
    widths = [f"generator.width={options.width}",
              f"discriminator.width={options.width}"] if options.width else []
    words = [*(word for word in preset if not word.startswith("train.")), *ALIKE.get(load, ()), *widths,
             *words]
    recipe, _, config = jobs.configure(lookup("recipe", recipe_name)(), DataConfig(), TrainConfig(),
                                       parse_assignments(words))
    config = replace(config, images=10**9, batch_size=options.batch or batch)
    runtime = Runtime(precision=config.precision, device=options.device, threads=config.threads,
                      tf32=config.tf32)
    return Trainer(recipe, DataInfo((size, size)), config, runtime, RunFolder("unused"), {})


def plainly(load, options, ours):
    """The plain loop, with our weights."""
    size = LOADS[load][1]
    loop = LOADS[load][3](size, **({"width": options.width} if options.width else {}))
    batch = {key: torch.zeros(2, 3, size, size) for key in "ab"}
    for name, network in loop.networks.items():
        if load.startswith("stylegan2"):
            found = {k: v.to("cpu") for k, v in ours.modules[name].state_dict().items()}
            network.load_state_dict({k: found[k] for k in network.state_dict()})
        else:
            x = torch.zeros(2, 100, 1,
                            1) if load == "dcgan" and name == "G" else torch.cat([*batch.values()],
                                                                                 1) if load + name == "pix2pixD" \
                else batch["a"]
            theirs, mine = in_order(network, x), in_order(ours.modules[name].to("cpu"),
                                                          x.flatten(1) if x.shape[2] == 1 else x)
            for one, other in zip(theirs, mine, strict=True):
                one.load_state_dict(other.state_dict())
            ours.modules[name].to(ours.runtime.device)
        network.to(ours.runtime.device).train()
    return loop


def in_order(network, x):
    """The layers that have parameters, in the order in which an image passes them."""
    order = []
    hooks = [m.register_forward_hook(lambda m, *_: order.append(m)) for m in network.modules()
             if list(m.parameters(recurse=False))]
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    network.train()
    return order


def drawn(load, options, g):
    """A batch."""
    _, size, batch, _, _ = LOADS[load]
    return {key: (torch.rand(options.batch or batch, 3, size, size, generator=g) * 2 - 1).to(options.device)
            for key in "ab"}


def timed(job):
    """Seconds."""
    start = time.perf_counter()
    job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def losses(trainer, batch):
    """Those of a step that is really made."""
    trainer.advance(batch)
    return trainer.state.optimizers.means()


def peak(device, precision):
    """Operations per second of one large convolution, 256 channels of 3x3 on 64x64, the best of several."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    n = 64 if device == "cuda" else 4
    x, w = torch.randn(n, 256, 64, 64, device=device, dtype=dtype), torch.randn(256, 256, 3, 3,
                                                                                device=device, dtype=dtype)
    with torch.no_grad():
        seconds = min(timed(lambda: F.conv2d(x, w, padding=1)) for _ in range(6))
    return 2 * x.numel() * 256 * 9 / seconds


def counted(trainer, batch):
    """Operations of one step."""
    with FlopCounterMode(display=False) as counter:
        trainer.advance(batch)
    return counter.get_total_flops()


def measure(load, variants, options):
    """Seconds of each variant's steps in turn, weighted by kind.  -> name -> one figure for each round;
    losses; operations"""
    g = torch.Generator().manual_seed(0)
    trainers = {name: engine(load, words, options) for name, words in variants.items()}
    first = next(iter(trainers.values()))
    loop = plainly(load, options, first)
    batch = drawn(load, options, g)
    told = {}
    for name, trainer in trainers.items():
        told[name] = losses(trainer, batch)
    seed_step(0, 0, 0)
    random.seed(0)
    told["plain"] = loop.step(batch)
    operations = counted(first, batch)
    rounds = {name: [] for name in ("plain", *trainers)}
    kinds = LOADS[load][4]
    began = time.perf_counter()
    while len(rounds["plain"]) < options.rounds and (time.perf_counter() - began < options.seconds
                                                     or not rounds["plain"]):
        sums = dict.fromkeys(rounds, 0.0)
        for step, weight in kinds:
            batch = drawn(load, options, g)
            loop.count = step
            sums["plain"] += weight * timed(lambda batch=batch: loop.step(batch))
            for name, trainer in trainers.items():
                trainer.state.step = step
                sums[name] += weight * timed(lambda trainer=trainer, batch=batch: trainer.advance(batch))
        for name, seconds in sums.items():
            rounds[name].append(seconds)
    return rounds, told, operations


def alone(load, words, options):
    """Bytes that a few steps took beyond what was there before, and the share of time spent waiting for
    batches."""
    _, size, default, _, _ = LOADS[load]
    batch = options.batch or default
    before = peak_memory()
    if words is None:
        first = engine(load, [], options)
        loop = plainly(load, options, first)
        del first
        g = torch.Generator().manual_seed(0)
        for _ in range(3):
            loop.step(drawn(load, options, g))
        return peak_memory() - before if options.device == "cpu" else torch.cuda.max_memory_allocated(), None
    trainer = engine(load, words, options)
    with tempfile.TemporaryDirectory() as folder:
        drawn_files(Path(folder), size, trainer.recipe.dataset)
        name, preset = jobs.recipe_or_preset(LOADS[load][0])
        job = jobs.prepare(name, [*preset, *words, f"train.batch_size={batch}", "data.flip=true"],
                           data=folder)
        with closing(training.job_batches(job, trainer.runtime, 0)) as batches:
            waits, total = 0.0, 0.0
            for i in range(ALONE):
                waited = timed(lambda: setattr(trainer, "_got", next(batches)))
                took = timed(lambda: trainer.advance(trainer._got))
                if i:
                    waits, total = waits + waited, total + waited + took
    return peak_memory() - before if options.device == "cpu" else torch.cuda.max_memory_allocated(), waits / total


def drawn_files(folder, size, dataset):
    """32 smooth pictures with some grain, so that PNG has to work as on photographs."""
    g = np.random.default_rng(0)
    places = {"paired": ["train"], "unpaired": ["trainA", "trainB"], "images": ["."]}[dataset]
    for place in places:
        (folder / place).mkdir(exist_ok=True)
        for i in range(32):
            wide = 2 * size if dataset == "paired" else size
            rough = Image.fromarray(g.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((wide, size),
                                                                                          Image.Resampling.BICUBIC)
            picture = np.clip(np.asarray(rough) + g.integers(-6, 7, (size, wide, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / place / f"{i:02}.png")


def in_a_process(load, words, options):
    """`alone`, in a process that has done nothing else."""
    command = [sys.executable, __file__, load, "--alone", json.dumps(words), "--device", options.device,
               "--batch", str(options.batch),
               "--width", str(options.width)]
    return json.loads(subprocess.run(command, capture_output=True, text=True,
                                     check=True).stdout.splitlines()[-1])


def report(load, options):
    """Print one table."""
    variants = {"fp32": [],
                "bf16": ["train.precision=bf16"]} | ({" ".join(options.words): options.words}
                                                     if options.words else {})
    rounds, told, operations = measure(load, variants, options)
    batch = options.batch or LOADS[load][2]
    width = f", width {options.width}" if options.width else ""
    print(f"\n{load}: {LOADS[load][1]} pixels, batch {batch}{width}; {operations / 1e9:.1f} GFLOP a step, "
          f"{len(rounds['plain'])} rounds")
    print(f"{'':<12}{'ms/step':>9}{'images/s':>10}{'/ plain':>9}{'quartiles':>14}{'MB':>7}{'waiting':>9}{'FLOP use':>10}{'losses differ by':>18}")
    for name, seconds in rounds.items():
        words = variants.get(name)
        ratios = [one / base for one, base in zip(seconds, rounds["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        median = statistics.median(seconds)
        memory, waiting = in_a_process(load, words, options) if not options.quick else (float("nan"), None)
        most = max(abs(told[name][key] - told["plain"][key]) / abs(told["plain"][key])
                   for key in BEFORE[load]) if BEFORE[load] else None
        use = operations / median / options.peaks["bf16" if words and "train.precision=bf16" in words
                                                  else "fp32"]
        print(f"{name:<12}{median * 1e3:>9.0f}{batch / median:>10.2f}{middle:>9.2f}{f'{low:.2f} … {high:.2f}':>14}{memory / 1e6:>7.0f}"
              f"{'' if waiting is None else f'{waiting:.1%}':>9}{use:>10.0%}{'' if most is None else f'{most:.1e}':>18}", flush=True)


# Losses of the first step that no update has gone before; the plain StyleGAN2 draws other styles for each
# player.
BEFORE = {
    "pix2pix": ("d", "l1"), "dcgan": ("d",), "cyclegan": ("gan_a", "gan_b", "cycle_a", "cycle_b"),
    "stylegan2-64": (), "stylegan2-256": ()}


def main():
    """Print one table for each load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loads", nargs="*", default=[*LOADS])
    parser.add_argument("--with", dest="words", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="for each load")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="no memory, no waiting")
    parser.add_argument("--alone", default="")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(options.loads[0], json.loads(options.alone), options)))
        return
    options.peaks = {precision: peak(options.device, precision) for precision in ("fp32", "bf16")}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{torch.backends.cpu.get_cpu_capability()}, {options.device}; "
          "one convolution: "
          + ", ".join(f"{precision} {value / 1e9:.0f} GFLOP/s" for precision,
                      value in options.peaks.items()), flush=True)
    for load in options.loads:
        report(load, options)


if __name__ == "__main__":
    main()
