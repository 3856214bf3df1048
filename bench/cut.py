"""Time a training step of CUT and of FastCUT against one of CycleGAN: with the defaults of each, and with the
networks of CUT, whose filters against aliasing take a third longer.

The latter is what Park et al. 2020 compare, and what their code gives CycleGAN.  The recipes alternate on the
same batches, in fp32, in one process; ratios are taken pair by pair, so that drift in the speed of the
machine cancels.  On a CPU its time is measured, which other work on the machine hardly changes.

    OMP_NUM_THREADS=1 python bench/cut.py                   64, 128 and 256 pixels, batch 1, width 64
    OMP_NUM_THREADS=1 python bench/cut.py --sizes 64 --width 32 --batch 4
    OMP_NUM_THREADS=1 python bench/cut.py generator.down=strided generator.up=transposed
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch

from i2i.config import override, parse_assignments
from i2i.recipes.base import DataInfo
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.presets import PRESETS
from i2i.seeding import Progress, seed_step
from i2i.training.distributed import Runtime
from i2i.training.player_optimizers import PlayerOptimizers


def measure(size, options):
    """Seconds per step of each recipe.  -> {name: seconds}"""
    runtime = Runtime(device=options.device)
    widths = [f"generator.width={options.width}", f"discriminator.width={options.width}"]
    cuts = {name: override(CUT(), parse_assignments([*PRESETS[name].settings, *widths, *options.settings]))
            for name in ("cut", "fastcut")}
    cyclegan = override(CycleGAN(), parse_assignments(widths))
    same = replace(cyclegan, generator=cuts["cut"].generator, discriminator=cuts["cut"].discriminator)
    recipes = {"cyclegan": cyclegan, "same networks": same, **cuts}
    clock = time.perf_counter if runtime.device.type == "cuda" else time.process_time
    modules = {name: recipe.modules(DataInfo((size, size))).to(runtime.device)
               for name, recipe in recipes.items()}
    optimizers = {name: PlayerOptimizers(recipe, modules[name], runtime, max_skips=3)
                  for name, recipe in recipes.items()}
    times = {name: [] for name in recipes}
    for i in range(options.rounds + 1):
        a, b = (torch.rand(2, options.batch, 3, size, size, device=runtime.device) * 2 - 1).unbind()
        for name, recipe in recipes.items():
            progress = Progress(i, options.batch, 10**9)
            seed_step(0, 0, i)
            start = clock()
            optimizers[name].begin(progress)
            recipe.step(modules[name], {"a": a, "b": b}, progress, optimizers[name])
            if runtime.device.type == "cuda":
                torch.cuda.synchronize()
            if i:       # The first step allocates the optimizers' state.
                times[name].append(clock() - start)
    return times


def main():
    """Print one row for each size and recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", help="KEY=VALUE of cut and fastcut")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}, batch "
          f"{options.batch}, width {options.width}, {options.rounds} rounds, {' '.join(options.settings)}")
    print(f"{'pixels':>6}  {'recipe':<14}{'ms':>9}{'to cyclegan':>13}{'to same networks':>18}   quartiles")
    for size in options.sizes:
        times = measure(size, options)
        for name, seconds in times.items():
            plain, same = ([one / other for one, other in zip(seconds, times[base], strict=True)]
                           for base in ("cyclegan", "same networks"))
            low, middle, high = statistics.quantiles(same, n=4)
            print(f"{size:>6}  {name:<14}{statistics.median(seconds) * 1e3:>9.1f}"
                  f"{statistics.median(plain):>13.3f}{middle:>18.3f}   {low:.3f} … {high:.3f}", flush=True)


if __name__ == "__main__":
    main()
