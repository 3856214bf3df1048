"""What StyleGAN2 costs at 64x64 pixels: two forms of its modulated convolution, its players, a step of
training.

    python bench/stylegan2.py                                       widths 8, 16 and 32, on a CPU
    python bench/stylegan2.py --widths 32 64 --device cuda --precision bf16

`width` is that next to the image; it doubles inwards to at most `--most`.  A step is that of the preset: R1
in one of 16, path length in one of 4, and the time is the mean over 16 of them.  Memory is the most that the
process has held (on a GPU: tensors), libraries included, so widths must rise.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn import functional as F

from i2i.config import override, parse_assignments
from i2i.nets.resampling import blur
from i2i.nets.stylegan2 import ModulatedConv2d
from i2i.recipes.base import DataInfo
from i2i.recipes.gan import GAN
from i2i.recipes.presets import PRESETS
from i2i.seeding import Progress
from i2i.training.distributed import Runtime
from i2i.training.memory import peak_memory
from i2i.training.player_optimizers import PlayerOptimizers

SIDE = 64
CYCLE = 16      # Steps after which each regularizer has been due as often as it should.


def grouped(layer, x, style):
    """`ModulatedConv2d.convolve` with a kernel for each image: one convolution of one image with N groups."""
    n, c, h, w = x.shape
    kernels = layer.weight * style.to(x.dtype)[:, None, :, None, None]
    if layer.up:
        out = F.conv_transpose2d(x.reshape(1, n * c, h, w), kernels.transpose(1, 2).flatten(0, 1), stride=2,
                                 groups=n)
        return blur(out.unflatten(1, (n, -1))[0], 1)
    return F.conv2d(x.reshape(1, n * c, h, w), kernels.flatten(0, 1), padding=kernels.shape[-1] // 2,
                    groups=n).unflatten(1, (n, -1))[0]


def check(G, scaled):
    """Both forms give the same numbers."""
    for layer in (G.up[0], G.layers[0]):
        x, style = torch.randn(2, layer.weight.shape[1], 4, 4).to(layer.weight), torch.randn(2,
                                                                                             layer.weight.shape[1]).to(layer.weight)
        torch.testing.assert_close(grouped(layer, x, style), scaled(layer, x, style), atol=1e-2, rtol=1e-3)


def seconds(job, device, rounds):
    """Median seconds of a job, after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def players(recipe, runtime, options):
    """Milliseconds for each image: G's forward pass, forward and backward with each form in turn, and D's
    forward and backward."""
    m = recipe.modules(DataInfo((SIDE, SIDE))).to(runtime.device)
    G, D = m["G"], m["D"]
    z = torch.randn(options.batch, G.z_dim, device=runtime.device)
    images = torch.randn(options.batch, 3, SIDE, SIDE, device=runtime.device)

    @torch.no_grad()
    def forward():
        with runtime.autocast():
            G(z)

    def both(network, x):
        with runtime.autocast():
            out = network(x)
        out.square().sum().backward()
        network.zero_grad()

    scaled = ModulatedConv2d.convolve
    check(G, scaled)
    times = {"scaled": [], "grouped": []}
    # In turn, so that a machine whose speed drifts does not decide it.
    for _ in range(options.rounds):
        for name, form in (("scaled", scaled), ("grouped", grouped)):
            ModulatedConv2d.convolve = form
            times[name].append(seconds(lambda: both(G, z), runtime.device, 1))
    ModulatedConv2d.convolve = scaled
    figures = [seconds(forward, runtime.device, options.rounds), *map(statistics.median, times.values()),
               seconds(lambda: both(D, images), runtime.device, options.rounds)]
    return [1e3 * figure / options.batch for figure in figures]


def step(recipe, runtime, options):
    """Seconds of training for each 1,000 images, and bytes held at most."""
    m = recipe.modules(DataInfo((SIDE, SIDE))).to(runtime.device)
    learner = PlayerOptimizers(recipe, m, runtime, max_skips=3)
    images = torch.rand(options.batch, 3, SIDE, SIDE, device=runtime.device) * 2 - 1

    def cycle():
        for i in range(CYCLE):
            progress = Progress(i, options.batch, 10**9)
            learner.begin(progress)
            with runtime.autocast():
                recipe.step(m, {"b": images}, progress, learner)

    taken = seconds(cycle, runtime.device, options.cycles)
    memory = torch.cuda.max_memory_allocated() if runtime.device.type == "cuda" else peak_memory()
    return 1000 * taken / (CYCLE * options.batch), memory


def main():
    """Print one row for each width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--most", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    runtime = Runtime(device=options.device, precision=options.precision)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}, "
          f"{options.precision}, batch {options.batch}, "
          f"{SIDE}x{SIDE}")
    print("ms for each image: G forward, G forward and backward by scaled activations and by grouped "
          "kernels, D forward and backward")
    print(f"{'width':>6}{'G fwd':>8}{'scaled':>8}{'grouped':>9}{'D f+b':>8}"
          f"{'s / 1,000 images':>18}{'memory MB':>11}")
    for width in options.widths:
        words = [f"{player}.{word}" for player in ("generator", "discriminator")
                 for word in (f"width={width}", f"max_channels={options.most}")]
        settings = [word for word in PRESETS["stylegan2"].settings if not word.startswith("train.")]
        recipe = override(GAN(), parse_assignments([*settings, *words]))
        figures = players(recipe, runtime, options)
        time_, memory = step(recipe, runtime, options)
        print(f"{width:>6}{figures[0]:>8.2f}{figures[1]:>8.2f}{figures[2]:>9.2f}{figures[3]:>8.2f}"
              f"{time_:>18.1f}{memory / 1e6:>11.0f}", flush=True)


if __name__ == "__main__":
    main()
