"""Peak memory of translating one image, by its size, each in a process of its own.

The figures are what an image adds to the peak memory of a process that has imported everything and built the
network, whose own peak is the first column of megabytes.

    python bench/memory.py      (the default U-Net of pix2pix and ResNet of CycleGAN, three sizes)
    python bench/memory.py --sizes 4096 --width 32
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn

from i2i.config import to_dict
from i2i.images.format import ImageFormat
from i2i.inference.model import Model
from i2i.inference.model_file import model_header
from i2i.recipes.base import DataInfo
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec, build
from i2i.training.memory import peak_memory

TRAINED = (256, 256)        # The size that decides the depth of the U-Net and the blocks of the ResNet.


def model_of(network, width):
    """A default generator of these recipes with random weights, as a model of one direction."""
    spec = {"unet": Pix2Pix().generator, "resnet": CycleGAN().generator}[network]
    recipe = Pix2Pix(generator=Spec(spec.name, {**spec.options, "width": width}))
    generator = build("generator", recipe.generator, 3, 3, TRAINED)
    header = model_header("pix2pix", to_dict(recipe), DataInfo(TRAINED), (ImageFormat(), ImageFormat()))
    return Model(recipe, nn.ModuleDict({"E": nn.Identity(), "G": generator}), header, torch.device("cpu"))


def measure(network, size, width):
    """One process: megabytes before and after, and seconds."""
    torch.set_num_threads(1)
    model = model_of(network, width)
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    before, began = peak_memory(), time.perf_counter()
    assert model.translate(image).shape == image.shape
    return {"before": before / 1e6, "peak": peak_memory() / 1e6, "seconds": time.perf_counter() - began}


def main():
    """A row for each network and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.width)))
        return
    print(f"torch {torch.__version__}, one thread, width {options.width}, float32")
    print(f"{'network':10}{'pixels':>12}{'before':>10}{'peak':>10}{'image':>10}{'bytes/pixel':>14}"
          f"{'seconds':>10}")
    for network in ("unet", "resnet"):
        for size in options.sizes:
            command = [sys.executable, __file__, "--width", str(options.width), "--one", network, str(size)]
            got = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            added = got["peak"] - got["before"]
            print(f"{network:10}{f'{size}x{size}':>12}{got['before']:>7.0f} MB{got['peak']:>7.0f} MB"
                  f"{added:>7.0f} MB{added * 1e6 / size**2:>14.0f}{got['seconds']:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
