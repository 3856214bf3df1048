"""Time a folder job against the bare network, and against a script that takes one image at a time.

Makes a folder of pictures and alternates, several times, between the network alone on batches of the same
size, `i2i translate` (reading, decoding, network, encoding, writing), and reading, translating and saving one
image after the other.  Memory is measured in a process of its own for each.  The weights are random, as speed
does not depend on them.

    python bench/translate.py                        200 images of 256 pixels, the default U-Net
    python bench/translate.py --size 64 --width 32
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import nn

from i2i.config import to_dict
from i2i.data.sources import open_source
from i2i.images.format import ImageFormat
from i2i.inference.model import Model, default_batch_size
from i2i.inference.model_file import model_header
from i2i.inference.translate import translate
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec


def peak_memory():
    """Peak resident bytes of this process.  Unlike ru_maxrss, they do not start at those of its parent."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("VmHWM"))


def random_model(size, width):
    """The default generator with random weights."""
    recipe = Pix2Pix(generator=Spec("unet", {"width": width}))
    info = DataInfo((size, size))
    modules = nn.ModuleDict({key: recipe.modules(info)[key] for key in recipe.ema_modules})
    return Model(recipe, modules,
                 model_header("pix2pix", to_dict(recipe), info, (ImageFormat(), ImageFormat())),
                 torch.device("cpu"))


def fill(folder, count, size):
    """Write smooth pictures with some grain, which PNG compresses as it does photographs."""
    g = np.random.default_rng(0)
    for i in range(count):
        rough = Image.fromarray(g.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((size, size),
                                                                                      Image.Resampling.BICUBIC)
        grain = g.integers(-6, 7, (size, size, 3))
        picture = np.clip(np.asarray(rough.filter(ImageFilter.SMOOTH)) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{i:04}.png")


def one_by_one(model, folder, out):
    """The simple script: read an image, translate it, save it, then the next."""
    out.mkdir()
    G = model.modules["G"].eval()
    for path in sorted(folder.iterdir()):
        array = np.array(Image.open(path).convert("RGB"))
        x = (torch.from_numpy(array.transpose(2, 0, 1)).float() / 255 - 0.5) / 0.5
        with torch.no_grad():
            y = G(x[None])[0]
        array = ((y.numpy().transpose(1, 2, 0) + 1) / 2 * 255).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(array).save(out / path.name)


def jobs(model, options, folder):
    """The variants by name: functions of the number of the output folder."""
    batch = default_batch_size(options.size, options.size)
    x = torch.rand(batch, 3, options.size, options.size) * 2 - 1
    source = open_source(folder / "in")

    def network(_):
        for first in range(0, options.images, batch):
            model(x[:min(batch, options.images - first)])

    def ours(i):
        assert translate(model, source, folder / f"ours{i}").done == options.images

    return {"network alone": network, "i2i translate": ours,
            "one by one": lambda i: one_by_one(model, folder / "in", folder / f"plain{i}")}


def timed(job, i):
    """Seconds that a job takes."""
    start = time.perf_counter()
    job(i)
    return time.perf_counter() - start


def difference(folder):
    """Largest difference in gray levels between the two folders: rounding depends on the batch size."""
    pairs = ((np.asarray(Image.open(path)), np.asarray(Image.open(folder / "plain0" / path.name)))
             for path in (folder / "ours0").iterdir())
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)


def measure_memory(name, options, folder):
    """Peak bytes of a job, beyond those before the network is built."""
    before = peak_memory()
    jobs(random_model(options.size, options.width), options, folder)[name](0)
    return peak_memory() - before


def measure_memory_in_subprocess(name, options, folder):
    """`measure_memory` in a process of its own."""
    work = [f"--{key}={getattr(options, key)}" for key in ("images", "size", "width")]
    command = [sys.executable, __file__, "--memory-of", name, "--folder", str(folder), *work]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main():
    """Print images per second, ratios and memory of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(measure_memory(options.memory_of, options, options.folder))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        fill(folder / "in", options.images, options.size)
        variants = jobs(random_model(options.size, options.width), options, folder)
        variants["network alone"](0)
        seconds = {name: [] for name in variants}
        for i in range(options.rounds):
            for name, job in variants.items():
                seconds[name].append(timed(job, i))
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
              f"{torch.backends.cpu.get_cpu_capability()}, {options.images} images of {options.size} pixels, "
              f"width {options.width}; {options.rounds} rounds; results differ by {difference(folder)} "
              "levels at most")
        print(f"{'':<15}{'images/s':>10}{'/ network':>11}{'/ one by one':>14}{'range':>16}{'MB':>7}")
        for name, times in seconds.items():
            to_network, to_simple = (
                [other / own for own, other in zip(times, seconds[base], strict=True)]
                for base in ("network alone", "one by one"))
            shutil.rmtree(folder / "ours0", ignore_errors=True)
            shutil.rmtree(folder / "plain0", ignore_errors=True)
            megabytes = measure_memory_in_subprocess(name, options, folder) / 1e6
            print(f"{name:<15}{options.images / statistics.median(times):>10.1f}"
                  f"{statistics.median(to_network):>11.2f}{statistics.median(to_simple):>14.2f}"
                  f"{f'{min(to_simple):.2f} … {max(to_simple):.2f}':>16}{megabytes:>7.0f}", flush=True)


if __name__ == "__main__":
    main()
