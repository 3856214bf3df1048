"""What `i2i leaks` finds of copies that are planted, and how often it takes other images for copies.

    python bench/planted_copies.py                  the table of docs/leaks.md
    python bench/planted_copies.py --time 5000      seconds of each stage and memory, of so many images
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from i2i.data.image_set import ImageSet, open_image_set
from i2i.data.labeled import find_images
from i2i.data.sources import open_source
from i2i.evaluation.leaks import find_leaks
from i2i.evaluation.request import EvaluationRequest, choose_features
from i2i.files import temporary_folder
from i2i.metrics.copies import MAX_DIFFERENCE, CopyFinder, copy_threshold, thumbnail
from i2i.metrics.planted_faults import jpeg, noise, shift_hue

COPIES = 50


def shift(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Move what is seen by up to 2 pixels; the edge is repeated."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    return padded[2 - down:2 - down + height, 2 - right:2 - right + width]


def scale(image: np.ndarray, *factors: float) -> np.ndarray:
    """Levels times a factor, or one for each channel."""
    return (image * np.array(factors)).round().clip(0, 255).astype(np.uint8)


RNG = np.random.default_rng(0)
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": lambda image: image, "mirrored": lambda image: image[:, ::-1],
    "shifted by 2, 2 pixels": lambda image: shift(image, 2, 2),
    "JPEG, quality 50": lambda image: jpeg(image, 50, RNG),
    "5 % darker": lambda image: scale(image, 0.95), "25 % darker": lambda image: scale(image, 0.75),
    "tinted (blue 20 %, green 10 % less)": lambda image: scale(image, 1, 0.9, 0.8),
    "noise of 5 levels": lambda image: noise(image, 5, RNG),
    "mirrored, shifted, JPEG 50": lambda image: jpeg(shift(image[:, ::-1], 1, 2), 50, RNG),
    "hue turned by 15°": lambda image: shift_hue(image, 15, RNG)}


def table(name: str) -> None:
    """Print how many of 50 copies of each kind are found, and how many held-out images are flagged."""
    sets = [ImageSet(split.source, split.names) for split in find_images(open_source(name)).values()]
    images = [np.stack([each.read(i) for i in range(len(each))]) for each in sets]
    order = np.random.default_rng(0).permutation(len(images[0]))
    # Without a test split, half of the images are held out.
    train, held_out = images if len(images) > 1 else (images[0][order[::2]], images[0][order[1::2]])
    finder = CopyFinder(np.stack([thumbnail(image) for image in train]))
    distances = np.array([match.distance for match in finder.find(held_out)])
    halves = distances[::2], distances[1::2]
    flagged = sum((other < copy_threshold(half, MAX_DIFFERENCE)[0]).sum()
                  for half, other in (halves, halves[::-1]))
    threshold, chance = copy_threshold(distances, MAX_DIFFERENCE)
    print(f"{name}: {len(train):,} training images; of {len(distances)} held-out ones {flagged} are flagged "
          f"by the threshold of the other half; threshold of all {threshold:.1f}, by chance {chance:.2%}")
    chosen = np.random.default_rng(1).choice(len(train), COPIES, replace=False)
    for kind, change in CHANGES.items():
        found = finder.find(np.stack([change(np.ascontiguousarray(train[i])) for i in chosen]))
        hits = sum(match.distance < threshold and match.index == i
                   for match, i in zip(found, chosen, strict=True))
        largest = max(match.distance for match in found)
        print(f"  {kind:36} {hits} of {COPIES}, distance at most {largest:.1f}")


def anonymous_memory() -> int:
    """MiB of this process that no file backs (Linux); pages of mapped files can be dropped at any time."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) >> 10


def measure(n: int, side: int, features: str) -> None:
    """Print the processor time of each stage for n training images and fakes, variants of peeps-64."""
    train = find_images(open_source("peeps-64"))["train"]
    reals, rng = ImageSet(train.source, train.names), np.random.default_rng(0)
    with temporary_folder() as folder:
        for name, count in (("train", n), ("fake", n), ("test", n // 5)):
            (folder / name).mkdir()
            for i in range(count):
                image = np.roll(reals.read(int(rng.integers(len(reals)))), rng.integers(64, size=2), (0, 1))
                varied = Image.fromarray(scale(image, *rng.uniform(0.3, 1, 3))).resize((side, side))
                varied.save(folder / name / f"{i:06}.png", compress_level=1)
        sets = [open_image_set(folder / name, "") for name in ("train", "fake", "test")]
        judges = choose_features(features, None, "clean")
        start, last, largest = time.process_time(), "begin", anonymous_memory()
        print(f"memory before: {largest} MiB that no file backs")

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal last, largest
            largest = max(largest, anonymous_memory())
            if stage != last:
                print(f"{last:36} to {time.process_time() - start:7.1f} s, {largest} MiB", flush=True)
                last = stage

        find_leaks(*sets, judges, EvaluationRequest((), False, cache=False, progress=progress))
        progress("end", 0, 0)
        print(f"largest memory {largest} MiB that no file backs, with mapped files "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--time", type=int, metavar="N")
    parser.add_argument("--side", type=int, default=64, help="of the images of --time")
    parser.add_argument("--features", default="efficientnet-lite0,random", help="for --time")
    options = parser.parse_args()
    if options.time:
        measure(options.time, options.side, options.features)
    else:
        for data in ("peeps-64", "fluent3d-64"):
            table(data)
