"""CPU time of a training step with a remedy over that of a plain one: dcgan of width 16, 32 pixels, batch 32,
one CPU thread, all in turn.

    python bench/stabilizers.py [TURNS]
"""

import statistics
import sys
import time

import torch

from i2i.config import override, parse_assignments
from i2i.recipes.base import DataInfo
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.seeding import Progress
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.ema import EMA
from i2i.training.optimization import PlayerOptimizers

torch.set_num_threads(1)
INFO, BATCH, STEPS = DataInfo((32, 32)), 32, 10
VIRTUAL = "{0}.norm=virtual {0}.reference=32"
WAYS = {
    "plain": "", "pack=2": "pack=2", "pack=4": "pack=4", "noise": "instance_noise=normal",
    "feature_matching": "feature_matching=means",
    "history": "lambda_history=0.01", "kernels": "discriminator.kernels=100",
    "group": "discriminator.group=4",
    "spectral": "d_weight_norm=spectral", "weight": "d_weight_norm=weight",
    "virtual G": VIRTUAL.format("generator"),
    "virtual G, D": VIRTUAL.format("generator") + " " + VIRTUAL.format("discriminator"),
    "mixture": "latent=mixture",
    "smooth": "adversarial.smooth=0.1", "unroll1": "unrolling=adam unrolling.steps=1",
    "unroll5": "unrolling=adam unrolling.steps=5",
    "unroll5 given": "unrolling=adam unrolling.steps=5 unrolling.second_order=false",
    "descent5": "unrolling=sgd unrolling.steps=5",
    "d_steps=5": "d_steps=5", "g_steps=2": "g_steps=2", "no norm": "discriminator.norm=none",
    "r1": "penalty=r1 discriminator.norm=none",
    "wgan-gp": "penalty=wgan-gp discriminator.norm=none", "clip": "penalty=clip", "ema": "",
    "pairs": "generator.depth=4 discriminator.layers=2",
    "pairs, layers": "generator.depth=4 discriminator.layers=2 feature_matching=layers"}
AGAINST = {"r1": "no norm", "wgan-gp": "no norm", "pairs, layers": "pairs"}     # The others against `plain`.

x = {side: torch.rand(BATCH, 3, 32, 32) * 2 - 1 for side in "ab"}
runs, times = {}, {name: [] for name in WAYS}
for name, words in WAYS.items():
    torch.manual_seed(0)
    r = override(Pix2Pix() if name.startswith("pairs") else GAN(),
                 parse_assignments(["generator.width=16", "discriminator.width=16", *words.split()]))
    m = r.modules(INFO)
    average = EMA(m, r.ema_modules, TrainConfig(images=10**6, ema_half_life=10_000 if name == "ema" else 0))
    runs[name] = (r, m, PlayerOptimizers(r, m, Runtime(device="cpu"), max_skips=3), average)
for turn in range(int((sys.argv[1:] or ["5"])[0]) + 1):
    for name, (r, m, learner, average) in runs.items():
        began = time.process_time()
        for step in range(STEPS):
            progress = Progress(step, BATCH, 10**6)
            learner.begin(progress)
            r.step(m, x, progress, learner)
            average.update(progress)
        if turn:      # The first warms up.
            times[name].append(time.process_time() - began)
for name, each in times.items():
    against = times[AGAINST.get(name, "plain")]
    print(f"{name:15} {statistics.median(a / b for a, b in zip(each, against, strict=True)):.2f}   "
          f"{statistics.median(each) / STEPS * 1000:.0f} ms")
