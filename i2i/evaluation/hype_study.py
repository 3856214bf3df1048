"""What people judge in a study of `i2i hype`: real and fake images of one size, and the masks after them.

Protocols: Zhou et al. 2019, "HYPE: A Benchmark for Human eYe Perceptual Evaluation of Generative Models".
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from i2i.data.image_set import ImageSet
from i2i.data.labeled import find_images
from i2i.data.sources import open_source
from i2i.data.transforms import resize
from i2i.errors import RequestError, require
from i2i.evaluation.request import Progress
from i2i.images.convert import middle_square
from i2i.images.encode import encode
from i2i.images.format import Array, ImageFormat

IMAGES = {"time": 150, "infinity": 100}     # Of a block.
BLOCKS = {"time": 3, "infinity": 1}
QUALIFICATION, PRACTICE, POOL, SIDE = 100, 10, 300, 256
NUM_MASKS = 16
# Milliseconds.  The paper writes 10 up after an error and 30 down after a right answer, which would settle at
# 25 % right answers, fewer than by guessing; the 75 % it claims take the reverse (Kaernbach 1991).
EXPOSURE = {"start": 500, "low": 100, "high": 1000, "up": 30, "down": 10, "countdown": 500, "mask": 30,
            "masks": 4}
PASS = 0.65                 # Of the real and of the fake images of the qualification.
LOST = 0.1                  # Share of the images of a block that may be shown too long or too short.


def make_settings(protocol: str, images: int | None = None, qualification: int = QUALIFICATION,
                  practice: int = PRACTICE) -> dict[str, Any]:
    """The settings of a study.  RequestError for numbers that are not of as many real as fake images."""
    require(protocol in IMAGES, "--protocol", protocol, "time or infinity")
    images = IMAGES[protocol] if images is None else images
    for option, value, least in (("images", images, 2), ("qualification", qualification, 0),
                                 ("practice", practice, 0)):
        if value < least or value % 2:
            raise RequestError(f"--{option} {value}: half of the images are real and half are fake; "
                               f"accepted: an even number{f' from {least}' if least else ' or 0'}")
    return {"protocol": protocol, "blocks": BLOCKS[protocol], "images": images, "practice": practice,
            "qualification": qualification, **EXPOSURE, "pass": PASS, "lost": LOST}


def open_reals(where: str, need: int, max_pixels: int | None = None) -> tuple[ImageSet, str]:
    """Real images and the name of their split: test, val or train, the first that has enough."""
    splits = find_images(open_source(where, max_pixels=max_pixels))
    found = [name for name in ("test", "val", "train") if name in splits]
    split = next((name for name in found if len(splits[name].names) >= need),
                 max(found, key=lambda name: len(splits[name].names)))
    return ImageSet(splits[split].source, splits[split].names), split


def images_needed(settings: Mapping[str, Any], models: int, qualifying: bool) -> tuple[int, int, int]:
    """How many images one person can need: real ones, fakes of each model, fakes for qualification only."""
    tests = settings["blocks"] * settings["images"] // 2
    parts = [settings[name] // 2 for name in ("practice", "qualification")]
    easy = sum(parts) if qualifying else sum(-(-part // models) for part in parts)
    return tests + sum(parts), tests if qualifying else tests + easy, easy if qualifying else 0


def make_study(reals: tuple[str, ImageSet], fakes: Sequence[tuple[str, ImageSet]],
               qualifying: ImageSet | None, settings: Mapping[str, Any], *, pool: int = POOL,
               side: int = SIDE, seed: int = 0, progress: Progress) -> dict[str, Any]:
    """Choose images and encode them, all in the same way, as JSON data for the page.

    Args:
        reals: name and real images.
        fakes: name and images of each model; each person judges those of one.
        qualifying: fakes for practice and qualification; by default those of all models in equal parts.
        settings: of `make_settings`.
        pool: how many images of each set are in the page, at least as many as one person needs.
        side: the most pixels that an image has on a side.
        seed: decides which images are chosen.
        progress: called while images are encoded.
    """
    needs = images_needed(settings, len(fakes), qualifying is not None)
    named = {f"--real {reals[0]}": (reals[1], needs[0]),
             **{f"--fake {name}": (images, needs[1]) for name, images in fakes},
             **({"--qualifying": (qualifying, needs[2])} if qualifying else {})}
    rng, chosen = np.random.default_rng(seed), list[ImageSet]()
    for option, (images, need) in named.items():
        if len(images) < need:
            raise RequestError(
                f"{option} has {len(images):,} images, and one person judges up to {need:,} of them; "
                f"accepted: {need:,} images, or smaller --images, --qualification and --practice")
        chosen.append(images.take(np.sort(rng.permutation(len(images))[:max(pool, need)])))
    frame, size = _framing(chosen, side)
    total, done = sum(map(len, chosen)), 0
    packed = list[list[list[str]]]()
    for images in chosen:
        packed.append([])
        for i, name in enumerate(images.names):
            packed[-1].append([name, _pack(frame(images.read(i)))])
            done += 1
            progress("encoded", done, total)
    masks = [["mask", _pack(scramble(frame(chosen[0].read(i)), rng))]
             for i in range(min(NUM_MASKS, len(chosen[0])))]
    study = {"settings": dict(settings), "width": size[1], "height": size[0], "real_name": reals[0],
             "reals": hashlib.sha256(json.dumps(packed[0]).encode()).hexdigest()[:16], "real": packed[0],
             "fakes": [{"name": name, "images": found} for (name, _), found in
                       zip(fakes, packed[1:], strict=False)],
             "qualifying": packed[-1] if qualifying else [], "masks": masks}
    return {"id": hashlib.sha256(json.dumps(study).encode()).hexdigest()[:16], **study}


def _framing(sets: Sequence[ImageSet], side: int) -> tuple[Callable[[Array], Array], tuple[int, int]]:
    """A function that brings images to one size, and that size: different sizes would give fakes away."""
    sizes = {(header.height, header.width) for images in sets
             for _, header in images.headers(range(len(images)))}
    first = next(iter(sizes))
    if len(sizes) == 1 and max(first) <= side:
        return lambda image: image, first
    target = min(side, *(min(size) for size in sizes))
    return lambda image: resize(middle_square(image), (target, target)), (target, target)


def scramble(image: Array, rng: np.random.Generator) -> Array:
    """An image (H, W, 3) of the same spectrum, mean and contrast, with random phases: a texture as a mask."""
    values = image.astype(float)
    noise = np.angle(np.fft.fft2(rng.random(image.shape[:2])))[..., None]
    mixed = np.fft.ifft2(np.abs(np.fft.fft2(values, axes=(0, 1))) *
                         np.exp(1j * (np.angle(np.fft.fft2(values, axes=(0, 1))) + noise)), axes=(0, 1)).real
    mean, spread = mixed.mean((0, 1)), mixed.std((0, 1))
    matched = (mixed - mean) / np.maximum(spread, 1e-9) * values.std((0, 1)) + values.mean((0, 1))
    return np.clip(np.rint(matched), 0, 255).astype(np.uint8)


def _pack(image: Array) -> str:
    """A lossless WebP in base64, so that no artifact of a file format gives fakes away."""
    return base64.b64encode(encode(".webp", image, ImageFormat())).decode()
