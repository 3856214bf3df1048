"""Time one pix2pix training step of the engine against the plain loop that everyone copies.

The plain loop: nested U-Net and PatchGAN of torch layers, BCEWithLogitsLoss, per-tensor Adam, `requires_grad` toggled around the
generator's update, no average of the weights.  Both run in fp32 on the same batches, in turn, in one process; the ratio is taken
pair by pair, so that a machine whose speed drifts does not decide it.

    python bench/step.py                     64, 128 and 256 pixels, batch 1, width 64
    python bench/step.py --batch 8 --width 32 --sizes 64
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from i2i.engine.config import TrainConfig
from i2i.engine.runtime import Runtime
from i2i.engine.train import Trainer
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.runs.folder import RunFolder
from i2i.spec import Spec


class Level(nn.Module):
    """One level of a nested U-Net."""

    def __init__(self, outer, inner, *, inside=None, channels=None, dropout=False):
        super().__init__()
        self.outermost = channels is not None
        down = nn.Conv2d(channels or outer, inner, 4, 2, 1, bias=False)
        if self.outermost:
            layers = [down, inside, nn.ReLU(True), nn.ConvTranspose2d(2 * inner, channels, 4, 2, 1), nn.Tanh()]
        elif inside is None:
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
        else:
            layers = [nn.LeakyReLU(0.2, True), down, nn.BatchNorm2d(inner), inside, nn.ReLU(True),
                      nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """Through this level and all inside."""
        return self.layers(x) if self.outermost else torch.cat([x, self.layers(x)], 1)


class Plain:
    """The plain loop."""

    def __init__(self, size, width):
        depth = size.bit_length() - 1
        widths = [width * min(2**i, 8) for i in range(depth)]
        level = None
        for i in reversed(range(1, depth)):
            level = Level(widths[i - 1], widths[i], inside=level, dropout=level is not None and depth - i <= max(1, depth - 5))
        self.G = Level(None, width, inside=level, channels=3)
        layers, c = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2, True)], width
        for out, stride in ((2 * width, 2), (4 * width, 2), (8 * width, 1)):
            layers += [nn.Conv2d(c, out, 4, stride, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.2, True)]
            c = out
        self.D = nn.Sequential(*layers, nn.Conv2d(c, 1, 4, 1, 1))
        for m in (*self.G.modules(), *self.D.modules()):
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(m.weight, 0, 0.02)
        adam = {"lr": 2e-4, "betas": (0.5, 0.999), "foreach": False, "fused": False}
        self.opt_G, self.opt_D = torch.optim.Adam(self.G.parameters(), **adam), torch.optim.Adam(self.D.parameters(), **adam)
        self.gan, self.l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()

    def step(self, a, b):
        """One iteration."""
        fake = self.G(a)
        self.D.requires_grad_(True)
        self.opt_D.zero_grad()
        out = self.D(torch.cat([a, fake], 1).detach())
        loss_fake = self.gan(out, torch.zeros_like(out))
        out = self.D(torch.cat([a, b], 1))
        ((loss_fake + self.gan(out, torch.ones_like(out))) / 2).backward()
        self.opt_D.step()
        self.D.requires_grad_(False)
        self.opt_G.zero_grad()
        out = self.D(torch.cat([a, fake], 1))
        (self.gan(out, torch.ones_like(out)) + 100 * self.l1(fake, b)).backward()
        self.opt_G.step()


def engine(size, width, batch, folder):
    """The trainer that `i2i train pix2pix` uses."""
    recipe = Pix2Pix(generator=Spec("unet", {"width": width}), discriminator=Spec("patch", {"width": width}))
    config = TrainConfig(images=10**9, batch=batch)
    return Trainer(recipe, DataInfo((size, size)), config, Runtime(device="cpu"), RunFolder(folder), {})


def measure(size, width, batch, rounds):
    """Seconds per step of both, in turn.  -> ours, plain"""
    plain = Plain(size, width)
    with tempfile.TemporaryDirectory() as folder:
        ours = engine(size, width, batch, Path(folder))
        times = [], []
        for i in range(rounds + 2):
            a, b = torch.rand(2, batch, 3, size, size) * 2 - 1
            start = time.perf_counter()
            ours.advance({"a": a, "b": b})
            middle = time.perf_counter()
            plain.step(a, b)
            end = time.perf_counter()
            if i >= 2:      # The first steps make the optimisers' state.
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
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}, width {options.width}, {options.rounds} pairs")
    print(f"{'pixels':>6}{'ours ms':>10}{'plain ms':>10}{'ratio':>8}   quartiles of the ratio")
    for size in options.sizes:
        ours, plain = measure(size, options.width, options.batch, options.rounds)
        ratios = [o / p for o, p in zip(ours, plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        times = [statistics.median(seconds) * 1e3 for seconds in (ours, plain)]
        print(f"{size:>6}{times[0]:>10.1f}{times[1]:>10.1f}{middle:>8.2f}   {low:.2f} … {high:.2f}", flush=True)


if __name__ == "__main__":
    main()
