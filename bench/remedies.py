"""Time of a training step with a remedy over that of a plain one: dcgan of width 16, 32 pixels, batch 32, one CPU thread, all in turn.

    python bench/remedies.py [TURNS]
"""

import statistics
import sys
import time

import torch

from i2i.clock import Clock
from i2i.engine.learner import Learner
from i2i.engine.runtime import Runtime
from i2i.recipes.base import DataInfo
from i2i.recipes.gan import GAN
from i2i.spec import override, split

torch.set_num_threads(1)
INFO, BATCH = DataInfo((32, 32)), 32
WAYS = {"plain": "", "pack=2": "pack=2", "pack=4": "pack=4", "noise": "instance_noise=normal", "matching": "matching=means",
        "history": "lambda_history=0.01", "kernels": "discriminator.kernels=100", "group": "discriminator.group=4",
        "spectral": "d_parametrisation=spectral", "unroll1": "unrolling=scaled unrolling.steps=1", "unroll5": "unrolling=scaled unrolling.steps=5",
        "unroll5 given": "unrolling=scaled unrolling.steps=5 unrolling.through=false", "d_steps=5": "d_steps=5", "g_steps=2": "g_steps=2"}
runs = {}
for name, words in WAYS.items():
    torch.manual_seed(0)
    r = override(GAN(), split(["generator.width=16", "discriminator.width=16", *words.split()]))
    m = r.modules(INFO)
    runs[name] = (r, m, Learner(r, m, Runtime(device="cpu"), max_skips=3))
x = {"b": torch.rand(BATCH, 3, 32, 32) * 2 - 1}
times = {name: [] for name in runs}
for turn in range(int((sys.argv[1:] or ["5"])[0]) + 1):
    for name, (r, m, learner) in runs.items():
        began = time.perf_counter()
        for step in range(10):
            clock = Clock(step, BATCH, 10**6)
            learner.begin(clock)
            r.step(m, x, clock, learner)
        if turn:      # The first warms up.
            times[name].append(time.perf_counter() - began)
plain = times["plain"]
for name, each in times.items():
    print(f"{name:15} {statistics.median(a / b for a, b in zip(each, plain, strict=True)):.2f}   {statistics.median(each) / 10 * 1000:.0f} ms")
