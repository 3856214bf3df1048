"""A folder job end to end against the bare network on the same batches.

Makes a folder of drawings or noise, translates it with `i2i.translate` (reading, decoding, network, encoding, writing), and runs the network alone
on batches of the same size; both in turn, several times.  The weights are random: speed does not depend on them.

    python bench/translate.py                        200 images of 256 pixels, the default U-Net
    python bench/translate.py --size 64 --width 32
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import nn

from i2i.data.files import open_source
from i2i.images import Kind
from i2i.infer import Model, header_for
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.spec import Spec, to_dict
from i2i.translate import PIXELS, translate


def random_model(size, width):
    """The default generator with random weights."""
    recipe = Pix2Pix(generator=Spec("unet", {"width": width}))
    info = DataInfo((size, size))
    modules = nn.ModuleDict({"G": recipe.modules(info)["G"]})
    return Model(recipe, modules, header_for("pix2pix", to_dict(recipe), info, (Kind(), Kind())), torch.device("cpu"))


def fill(folder, count, size):
    """Smooth pictures with some grain, so that PNG has to work as on photographs."""
    g = np.random.default_rng(0)
    for i in range(count):
        rough = Image.fromarray(g.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        grain = g.integers(-6, 7, (size, size, 3))
        picture = np.clip(np.asarray(rough.filter(ImageFilter.SMOOTH)) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{i:04}.png")


def main():
    """Print images per second of both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = random_model(options.size, options.width)
    batch = max(1, min(32, PIXELS // options.size**2))
    x = torch.rand(batch, 3, options.size, options.size) * 2 - 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        fill(folder / "in", options.images, options.size)
        source, ratios, speeds = open_source(folder / "in"), [], ([], [])
        model(x)
        for i in range(options.rounds):
            start = time.perf_counter()
            for first in range(0, options.images, batch):
                model(x[:min(batch, options.images - first)])
            middle = time.perf_counter()
            report = translate(model, source, folder / f"out{i}")
            end = time.perf_counter()
            assert report.done == options.images
            speeds[0].append(options.images / (middle - start))
            speeds[1].append(options.images / (end - middle))
            ratios.append((middle - start) / (end - middle))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{options.images} images of {options.size} pixels, width {options.width}, batch {batch}")
    print(f"network alone {statistics.median(speeds[0]):.1f} images/s, folder job {statistics.median(speeds[1]):.1f} images/s, "
          f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})")


if __name__ == "__main__":
    main()
