"""CPU time of a training step with each stabilizer relative to a plain one: dcgan of width 16, 32 pixels,
batch 32, one CPU thread, all variants timed in alternation.

    python bench/stabilizers.py [ROUNDS]
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
from i2i.training.player_optimizers import PlayerOptimizers

torch.set_num_threads(1)
INFO, BATCH, STEPS = DataInfo((32, 32)), 32, 10
VIRTUAL = "{0}.norm=virtual {0}.reference=32"
VARIANTS = {
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
    "unroll5 first-order": "unrolling=adam unrolling.steps=5 unrolling.second_order=false",
    "unroll5 sgd": "unrolling=sgd unrolling.steps=5",
    "d_steps=5": "d_steps=5", "g_steps=2": "g_steps=2", "no norm": "discriminator.norm=none",
    "r1": "penalty=r1 discriminator.norm=none",
    "wgan-gp": "penalty=wgan-gp discriminator.norm=none", "clip": "penalty=clip", "ema": "",
    "pairs": "generator.depth=4 discriminator.layers=2",
    "pairs, layers": "generator.depth=4 discriminator.layers=2 feature_matching=layers"}
REFERENCE = {"r1": "no norm", "wgan-gp": "no norm", "pairs, layers": "pairs"}     # For all others: `plain`.

x = {side: torch.rand(BATCH, 3, 32, 32) * 2 - 1 for side in "ab"}
runs, times = {}, {name: [] for name in VARIANTS}
for name, settings in VARIANTS.items():
    torch.manual_seed(0)
    recipe = override(Pix2Pix() if name.startswith("pairs") else GAN(),
                      parse_assignments(["generator.width=16", "discriminator.width=16", *settings.split()]))
    m = recipe.modules(INFO)
    average = EMA(m, recipe.ema_modules,
                  TrainConfig(images=10**6, ema_half_life=10_000 if name == "ema" else 0))
    runs[name] = (recipe, m, PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3), average)
for timed_round in range(int((sys.argv[1:] or ["5"])[0]) + 1):
    for name, (recipe, m, optimizers, average) in runs.items():
        start = time.process_time()
        for step in range(STEPS):
            progress = Progress(step, BATCH, 10**6)
            optimizers.begin(progress)
            recipe.step(m, x, progress, optimizers)
            average.update(progress)
        if timed_round:      # The first warms up.
            times[name].append(time.process_time() - start)
for name, seconds in times.items():
    reference = times[REFERENCE.get(name, "plain")]
    ratio = statistics.median(a / b for a, b in zip(seconds, reference, strict=True))
    print(f"{name:20} {ratio:.2f}   {statistics.median(seconds) / STEPS * 1000:.0f} ms")
