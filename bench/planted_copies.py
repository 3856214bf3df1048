"""What `i2i leaks` finds of copies that are planted, and how often it takes other images for copies.

    python bench/planted_copies.py                  the table of docs/leaks.md
    python bench/planted_copies.py --time 5000      seconds of each stage, of so many images
"""

import argparse
import resource
import time
from collections.abc import Callable

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


def measure(n: int) -> None:
    """Print the processor time of each stage for n training images and fakes, variants of peeps-64."""
    train = find_images(open_source("peeps-64"))["train"]
    reals, rng = ImageSet(train.source, train.names), np.random.default_rng(0)
    with temporary_folder() as folder:
        for name, count in (("train", n), ("fake", n), ("test", n // 5)):
            (folder / name).mkdir()
            for i in range(count):
                image = np.roll(reals.read(int(rng.integers(len(reals)))), rng.integers(64, size=2), (0, 1))
                Image.fromarray(scale(image, *rng.uniform(0.3, 1, 3))).save(folder / name / f"{i:06}.png")
        sets = [open_image_set(folder / name, "") for name in ("train", "fake", "test")]
        judges = choose_features("efficientnet-lite0,random", None, "clean")
        start, last = time.process_time(), ["", 0.0]

        def progress(stage: str, done: int, total: int) -> None:
            now = time.process_time() - start
            if stage != last[0]:
                print(f"{last[0]:36} to {now:7.1f} s", flush=True)
                last[0] = stage

        find_leaks(*sets, judges, EvaluationRequest((), False, cache=False, progress=progress))
        progress("end", 0, 0)
        print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--time", type=int, metavar="N")
    options = parser.parse_args()
    if options.time:
        measure(options.time)
    else:
        for data in ("peeps-64", "fluent3d-64"):
            table(data)
