"""Time a CycleGAN training step with the forward and identity translations of a generator in one batch and in
two.

Both variants alternate on the same batches, in fp32, in one process; the ratio is taken pair by pair, so that
drift in the speed of the machine cancels.

    python bench/cyclegan.py                                64 and 128 pixels, batch 1, width 64
    python bench/cyclegan.py --batch 4 --width 32 --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from i2i.recipes import cyclegan
from i2i.recipes.base import DataInfo
from i2i.registry import Spec
from i2i.seeding import Progress
from i2i.training.distributed import Runtime
from i2i.training.player_optimizers import PlayerOptimizers


def translate_separately(G, x, y):
    """G(x) and G(y) in two batches."""
    return G(x), G(y)


def measure(size, options):
    """Seconds per step of both variants.  -> joined, separate"""
    recipe = cyclegan.CycleGAN(generator=Spec("resnet", {"width": options.width}),
                               discriminator=Spec("patch", {"width": options.width, "norm": "instance"}))
    runtime = Runtime(device=options.device)
    modules = recipe.modules(DataInfo((size, size))).to(runtime.device)
    optimizers = PlayerOptimizers(recipe, modules, runtime, max_skips=3)
    times = {cyclegan.translate_both: [], translate_separately: []}
    for i in range(options.rounds + 1):
        a, b = (torch.rand(2, options.batch, 3, size, size, device=runtime.device) * 2 - 1).unbind()
        for translate, seconds in times.items():
            cyclegan.translate_both = translate
            start = time.perf_counter()
            progress = Progress(i, options.batch, 10**9)
            optimizers.begin(progress)
            recipe.step(modules, {"a": a, "b": b}, progress, optimizers)
            if runtime.device.type == "cuda":
                torch.cuda.synchronize()
            if i:       # The first step allocates the optimizers' state.
                seconds.append(time.perf_counter() - start)
    return times.values()


def main():
    """Print one row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}, batch "
          f"{options.batch}, width {options.width}, "
          f"{options.rounds} pairs")
    print(f"{'pixels':>6}{'joined ms':>11}{'separate ms':>13}{'ratio':>8}   quartiles of the ratio")
    for size in options.sizes:
        joined, separate = measure(size, options)
        low, middle, high = statistics.quantiles([j / a for j, a in zip(joined, separate, strict=True)], n=4)
        times = [statistics.median(seconds) * 1e3 for seconds in (joined, separate)]
        print(f"{size:>6}{times[0]:>11.1f}{times[1]:>13.1f}{middle:>8.3f}   {low:.3f} … {high:.3f}",
              flush=True)


if __name__ == "__main__":
    main()
