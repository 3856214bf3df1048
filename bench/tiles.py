"""Images computed in parts beside whole ones: differences, time per pixel, and peak memory.

    python bench/tiles.py equal                 # 2048x2048 in parts and whole: the largest difference
    python bench/tiles.py large --side 16384    # time per pixel beside that of 1024x1024 whole, peak memory

Each measurement is a process of its own, one thread.  Weights are random, times four, so that an image
depends on all of its input; `large` makes a TIFF of noise in a temporary folder and reads and writes it in
pieces.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

from i2i.config import to_dict
from i2i.data.sources import open_source
from i2i.images.format import ImageFormat
from i2i.inference.model import Model
from i2i.inference.tiled.limits import Limits
from i2i.inference.translate import translate
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec

NETWORKS = {"unet": Spec("unet", {"norm": "batch"}), "unet-instance": Spec("unet", {"norm": "instance"}),
            "resnet": Spec("resnet", {"blocks": 9}), "spade": Spec("spade", {}),
            "pix2pixhd": Spec("pix2pixhd", {})}


def model(name, width):
    """A pix2pix model of a network with random weights."""
    torch.manual_seed(0)
    spec = Spec(NETWORKS[name].name, {**NETWORKS[name].options, "width": width})
    recipe, info = Pix2Pix(generator=spec), DataInfo((256, 256))
    modules = recipe.modules(info)
    modules = torch.nn.ModuleDict({key: modules[key] for key in ("G", "E") if key in modules})
    for layer in modules.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.weight.data.mul_(4)
    header = {"recipe": {"name": "pix2pix"}, "info": to_dict(info),
              "formats": dict.fromkeys("ab", vars(ImageFormat()))}
    return Model(recipe, modules, header, torch.device("cpu"))


def resident(key):
    """VmRSS or VmHWM of this process, bytes."""
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def equal(name, side, width, memory):
    """The largest difference of an image in parts from the whole one, in [-1, 1]."""
    translator, x = model(name, width), torch.rand(1, 3, side, side) * 2 - 1
    start = time.perf_counter()
    whole = translator(x)
    middle = time.perf_counter()
    parts = translator.translate(x, memory=memory)
    return {"difference": (whole - parts).abs().max().item(), "spread": whole.std().item(),
            "whole_s": middle - start, "parts_s": time.perf_counter() - middle}


def large(name, side, width, memory):
    """CPU seconds per million pixels of a TIFF in and out, and the peak of memory beyond that before."""
    translator = model(name, width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "in", "x.tif")
        path.parent.mkdir()
        g = np.random.default_rng(0)
        tiles = (g.integers(0, 255, (256, 256, 3), np.uint8) for _ in range((side // 256) ** 2))
        tifffile.imwrite(path, tiles, shape=(side, side, 3), dtype=np.uint8, tile=(256, 256),
                         photometric="rgb")
        warm = torch.rand(1, 3, 512, 512)
        translator(warm)
        translator.translate(warm, tile=256)        # Imports what tracing needs.
        before, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")       # The peak counts from here.
        limits = Limits.parse(memory) if memory != "whole" else Limits()
        source = open_source(str(path.parent), max_pixels=side**2)
        report = translate(translator, source, Path(folder, "out"), limits=limits)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        assert report.done == 1, report.failed
    return {"cpu_s_per_megapixel": cpu * 1e6 / side**2, "cpu_s": cpu, "seconds": seconds,
            "peak_mb": (resident("VmHWM") - before) / 1e6}


def apart(what, *options):
    """One measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "one", what, *map(str, options)], capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Print a row for each measurement."""
    if sys.argv[1:2] == ["one"]:
        torch.set_num_threads(1)
        _, _, what, name, side, width, memory = sys.argv
        print(json.dumps({"equal": equal, "large": large}[what](name, int(side), int(width), memory)))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("equal", "large"))
    parser.add_argument("--networks", default=None)
    parser.add_argument("--side", type=int, default=0)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--memory", default="")
    options = parser.parse_args()
    if options.what == "equal":
        for name in (options.networks or ",".join(NETWORKS)).split(","):
            found = apart("equal", name, options.side or 2048, options.width, options.memory or "200MB")
            print(name, *(f"{key} {value:.3g}" for key, value in found.items()), flush=True)
        return
    for name in (options.networks or "unet").split(","):
        base = apart("large", name, 1024, options.width, "whole")
        print(name, "1024 whole", *(f"{key} {value:.3g}" for key, value in base.items()), flush=True)
        found = apart("large", name, options.side or 16384, options.width, options.memory or "1GB")
        times = found["cpu_s_per_megapixel"] / base["cpu_s_per_megapixel"]
        print(name, options.side or 16384, *(f"{key} {value:.3g}" for key, value in found.items()),
              f"{times:.2f} times the CPU time per pixel", flush=True)


if __name__ == "__main__":
    main()
