"""Speed, memory and arithmetic throughput of training steps, against plain training loops (bench/plain*.py).

All variants run in turn on the same batches in one process, and ratios are taken round by round, so that
drift of the machine's speed cancels.  Initial weights are the same, and the losses of the first step are
compared.
StyleGAN2's regularizers are due in some steps only: each kind of step is timed and weighted by its frequency.
Memory, and the share of time spent waiting for batches from PNG files, are measured in a separate process for
each variant.

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
from plain_stylegan2 import StyleGAN2
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
from i2i.training.settings import configure, recipe_or_preset
from i2i.training.trainer import Trainer

# name -> recipe or preset, pixels, default batch size, plain loop, (step, weight) of each kind of step
WORKLOADS = {
    "pix2pix": ("pix2pix", 256, 1, plain.Pix2Pix, ((1, 1.0),)),
    "cyclegan": ("cyclegan", 256, 1, plain.CycleGAN, ((1, 1.0),)),
    "dcgan": ("dcgan", 64, 32, plain.DCGAN, ((1, 1.0),)),
    "stylegan2-64": ("stylegan2", 64, 16, StyleGAN2, ((0, 1 / 16), (1, 12 / 16), (4, 3 / 16))),
    "stylegan2-256": ("stylegan2", 256, 4, StyleGAN2, ((0, 1 / 16), (1, 12 / 16), (4, 3 / 16)))}
# Settings that make our network that of the plain loop, whose dropout is not where the paper has it.
PLAIN_SETTINGS = {"pix2pix": ("generator.dropout_skip=1",)}
WIDTHS = ("generator.width", "discriminator.width")
ALONE_STEPS = 6       # Steps of a process that measures memory and waiting.


def make_trainer(workload, settings, options):
    """The trainer that `i2i train` uses, with the settings of a variant."""
    name, size, batch, _, _ = WORKLOADS[workload]
    recipe_name, preset = recipe_or_preset(name)
    settings = [*(setting for setting in preset if not setting.startswith("train.")),
                *PLAIN_SETTINGS.get(workload, ()),
                *(f"{network}={options.width}" for network in WIDTHS if options.width),
                *settings]
    recipe, _, config = configure(lookup("recipe", recipe_name)(), DataConfig(), TrainConfig(),
                                       parse_assignments(settings))
    config = replace(config, images=10**9, batch_size=options.batch or batch)
    runtime = Runtime(precision=config.precision, device=options.device, threads=config.threads,
                      tf32=config.tf32)
    return Trainer(recipe, DataInfo((size, size)), config, runtime, RunFolder("unused"), {})


def make_plain_loop(workload, options, ours):
    """The plain loop, with our weights."""
    size = WORKLOADS[workload][1]
    loop = WORKLOADS[workload][3](size, **({"width": options.width} if options.width else {}))
    batch = {key: torch.zeros(2, 3, size, size) for key in "ab"}
    for name, network in loop.networks.items():
        if workload.startswith("stylegan2"):
            found = {k: v.to("cpu") for k, v in ours.modules[name].state_dict().items()}
            network.load_state_dict({k: found[k] for k in network.state_dict()})
        else:
            inputs = {"dcgan G": torch.zeros(2, 100, 1, 1), "pix2pix D": torch.cat([*batch.values()], 1)}
            x = inputs.get(f"{workload} {name}", batch["a"])
            plain_layers = layers_in_order(network, x)
            our_layers = layers_in_order(ours.modules[name].to("cpu"), x.flatten(1) if x.shape[2] == 1 else x)
            for layer, our_layer in zip(plain_layers, our_layers, strict=True):
                layer.load_state_dict(our_layer.state_dict())
            ours.modules[name].to(ours.runtime.device)
        network.to(ours.runtime.device).train()
    return loop


def layers_in_order(network, x):
    """Layers with parameters, in the order in which an image passes them."""
    order = []
    hooks = [m.register_forward_hook(lambda m, *_: order.append(m)) for m in network.modules()
             if list(m.parameters(recurse=False))]
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    network.train()
    return order


def random_batch(workload, options, g):
    _, size, batch, _, _ = WORKLOADS[workload]
    return {key: (torch.rand(options.batch or batch, 3, size, size, generator=g) * 2 - 1).to(options.device)
            for key in "ab"}


def seconds_of(job):
    start = time.perf_counter()
    job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def losses(trainer, batch):
    """Make a step and return its losses."""
    trainer.advance(batch)
    return trainer.state.optimizers.means()


def peak(device, precision):
    """Operations per second of one large convolution, 256 channels of 3x3 on 64x64: the best of six."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    n = 64 if device == "cuda" else 4
    x = torch.randn(n, 256, 64, 64, device=device, dtype=dtype)
    w = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    with torch.no_grad():
        seconds = min(seconds_of(lambda: F.conv2d(x, w, padding=1)) for _ in range(6))
    return 2 * x.numel() * 256 * 9 / seconds


def count_operations(trainer, batch):
    """Floating-point operations of one step."""
    with FlopCounterMode(display=False) as counter:
        trainer.advance(batch)
    return counter.get_total_flops()


def measure(workload, variants, options):
    """Time steps of all variants in turn.  Returns name -> seconds of a step in each round, name -> losses of
    the first step, and the operations of a step."""
    g = torch.Generator().manual_seed(0)
    trainers = {name: make_trainer(workload, settings, options) for name, settings in variants.items()}
    first = next(iter(trainers.values()))
    loop = make_plain_loop(workload, options, first)
    batch = random_batch(workload, options, g)
    first_losses = {name: losses(trainer, batch) for name, trainer in trainers.items()}
    seed_step(0, 0, 0)
    random.seed(0)
    first_losses["plain"] = loop.step(batch)
    operations = count_operations(first, batch)
    rounds = {name: [] for name in ("plain", *trainers)}
    kinds = WORKLOADS[workload][4]
    start = time.perf_counter()
    while not rounds["plain"] or (len(rounds["plain"]) < options.rounds
                                  and time.perf_counter() - start < options.seconds):
        sums = dict.fromkeys(rounds, 0.0)
        for step, weight in kinds:
            batch = random_batch(workload, options, g)
            loop.count = step
            sums["plain"] += weight * seconds_of(lambda batch=batch: loop.step(batch))
            for name, trainer in trainers.items():
                trainer.state.step = step
                sums[name] += weight * seconds_of(lambda trainer=trainer, batch=batch: trainer.advance(batch))
        for name, seconds in sums.items():
            rounds[name].append(seconds)
    return rounds, first_losses, operations


def measure_alone(workload, settings, options):
    """Peak memory of a few steps in bytes, and the share of time spent waiting for batches."""
    _, size, default, _, _ = WORKLOADS[workload]
    batch = options.batch or default
    before = peak_memory()
    if settings is None:
        first = make_trainer(workload, [], options)
        loop = make_plain_loop(workload, options, first)
        del first
        g = torch.Generator().manual_seed(0)
        for _ in range(3):
            loop.step(random_batch(workload, options, g))
        return peak_memory() - before if options.device == "cpu" else torch.cuda.max_memory_allocated(), None
    trainer = make_trainer(workload, settings, options)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), size, trainer.recipe.dataset)
        name, preset = recipe_or_preset(WORKLOADS[workload][0])
        job = jobs.prepare(name, [*preset, *settings, f"train.batch_size={batch}", "data.flip=true"],
                           data=folder)
        with closing(training.job_batches(job, trainer.runtime, 0)) as batches:
            waits, total = 0.0, 0.0
            for i in range(ALONE_STEPS):
                start = time.perf_counter()
                data = next(batches)
                waited = time.perf_counter() - start
                took = seconds_of(lambda data=data: trainer.advance(data))
                if i:
                    waits, total = waits + waited, total + waited + took
    memory = peak_memory() - before if options.device == "cpu" else torch.cuda.max_memory_allocated()
    return memory, waits / total


def write_images(folder, size, dataset):
    """Write 32 smooth images with some noise, which PNG compresses like photographs."""
    g = np.random.default_rng(0)
    places = {"paired": ["train"], "unpaired": ["trainA", "trainB"], "images": ["."]}[dataset]
    for place in places:
        (folder / place).mkdir(exist_ok=True)
        for i in range(32):
            wide = 2 * size if dataset == "paired" else size
            coarse = Image.fromarray(g.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((wide, size), Image.Resampling.BICUBIC))
            image = np.clip(smooth + g.integers(-6, 7, (size, wide, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / place / f"{i:02}.png")


def run_alone(workload, settings, options):
    """`measure_alone` in a new process."""
    command = [sys.executable, __file__, workload, "--alone", json.dumps(settings), "--device",
               options.device, "--batch", str(options.batch), "--width", str(options.width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(workload, options):
    """Print one table."""
    variants = {"fp32": [], "bf16": ["train.precision=bf16"]}
    if options.settings:
        variants[" ".join(options.settings)] = options.settings
    rounds, losses_of, operations = measure(workload, variants, options)
    batch = options.batch or WORKLOADS[workload][2]
    width = f", width {options.width}" if options.width else ""
    print(f"\n{workload}: {WORKLOADS[workload][1]} pixels, batch {batch}{width}; "
          f"{operations / 1e9:.1f} GFLOP a step, {len(rounds['plain'])} rounds")
    print(f"{'':<12}{'ms/step':>9}{'images/s':>10}{'/ plain':>9}{'quartiles':>14}{'MB':>7}{'waiting':>9}"
          f"{'FLOP use':>10}{'losses differ by':>18}")
    for name, seconds in rounds.items():
        settings = variants.get(name)
        ratios = [ours / plain for ours, plain in zip(seconds, rounds["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        median = statistics.median(seconds)
        memory, waiting = (float("nan"), None) if options.quick else run_alone(workload, settings, options)
        differences = [abs(losses_of[name][key] - losses_of["plain"][key]) / abs(losses_of["plain"][key])
                       for key in FIRST_LOSSES[workload]]
        is_bf16 = settings and "train.precision=bf16" in settings
        use = operations / median / options.peaks["bf16" if is_bf16 else "fp32"]
        print(f"{name:<12}{median * 1e3:>9.0f}{batch / median:>10.2f}{middle:>9.2f}"
              f"{f'{low:.2f} … {high:.2f}':>14}{memory / 1e6:>7.0f}"
              f"{'' if waiting is None else f'{waiting:.1%}':>9}{use:>10.0%}"
              f"{f'{max(differences):.1e}' if differences else '':>18}", flush=True)


# Losses of the first step that precede any update; none of StyleGAN2, as the plain one draws other styles.
FIRST_LOSSES = {
    "pix2pix": ("d", "l1"), "dcgan": ("d",), "cyclegan": ("gan_a", "gan_b", "cycle_a", "cycle_b"),
    "stylegan2-64": (), "stylegan2-256": ()}


def main():
    """Print one table for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[*WORKLOADS])
    parser.add_argument("--with", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60, help="for each workload")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="no memory, no waiting")
    parser.add_argument("--alone", default="")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure_alone(options.workloads[0], json.loads(options.alone), options)))
        return
    options.peaks = {precision: peak(options.device, precision) for precision in ("fp32", "bf16")}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{torch.backends.cpu.get_cpu_capability()}, {options.device}; one convolution: "
          + ", ".join(f"{precision} {value / 1e9:.0f} GFLOP/s" for precision, value in options.peaks.items()),
          flush=True)
    for workload in options.workloads:
        report(workload, options)


if __name__ == "__main__":
    main()
