"""Time one pix2pix training step of the engine against the widely used plain PyTorch loop.

The plain loop (bench/plain.py): nested U-Net and PatchGAN of torch layers, BCEWithLogitsLoss, per-tensor
Adam, `requires_grad` toggled around the generator's update, no average of the weights.  Both run in fp32 on
the same batches, alternating in one process; the ratio is taken pair by pair, so that drift in the speed of
the machine cancels.

    python bench/step.py                     64, 128 and 256 pixels, batch 1, width 64
    python bench/step.py --batch 8 --width 32 --sizes 64
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import plain as loops
import torch

from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.runs.folder import RunFolder
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.trainer import Trainer


def engine(size, width, batch, folder):
    """The trainer that `i2i train pix2pix` uses."""
    recipe = Pix2Pix(generator=Spec("unet", {"width": width}), discriminator=Spec("patch", {"width": width}))
    config = TrainConfig(images=10**9, batch_size=batch)
    return Trainer(recipe, DataInfo((size, size)), config, Runtime(device="cpu"), RunFolder(folder), {})


def measure(size, width, batch, rounds):
    """Seconds per step of both, alternating.  -> ours, plain"""
    plain = loops.Pix2Pix(size, width)
    with tempfile.TemporaryDirectory() as folder:
        ours = engine(size, width, batch, Path(folder))
        times = [], []
        for i in range(rounds + 2):
            a, b = torch.rand(2, batch, 3, size, size) * 2 - 1
            start = time.perf_counter()
            ours.advance({"a": a, "b": b})
            middle = time.perf_counter()
            plain.step({"a": a, "b": b})
            end = time.perf_counter()
            if i >= 2:      # The first steps allocate the optimizers' state.
                times[0].append(middle - start)
                times[1].append(end - middle)
    return times


def main():
    """Print one row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}, width "
          f"{options.width}, {options.rounds} pairs")
    print(f"{'pixels':>6}{'ours ms':>10}{'plain ms':>10}{'ratio':>8}   quartiles of the ratio")
    for size in options.sizes:
        ours, plain = measure(size, options.width, options.batch, options.rounds)
        ratios = [o / p for o, p in zip(ours, plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        times = [statistics.median(seconds) * 1e3 for seconds in (ours, plain)]
        print(f"{size:>6}{times[0]:>10.1f}{times[1]:>10.1f}{middle:>8.2f}   {low:.2f} … {high:.2f}",
              flush=True)


if __name__ == "__main__":
    main()
