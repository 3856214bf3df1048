"""The sets of `i2i leaks`: training images, held-out ones without what looks like them, and fakes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from i2i.data.check.duplicates import near_duplicates
from i2i.data.check.file_facts import THUMBNAIL_SIZE, make_thumbnail
from i2i.data.image_set import ImageSet, open_image_set, pixel_digest
from i2i.data.labeled import find_images
from i2i.data.sources import open_source
from i2i.errors import RequestError
from i2i.evaluation.request import Progress
from i2i.files import temporary_folder
from i2i.images.format import Array, DecodedImage
from i2i.inference.generate import generate_set
from i2i.inference.generation_plan import plan_generation
from i2i.inference.image_store import trained_with
from i2i.inference.model import load
from i2i.inference.model_file import is_model
from i2i.metrics.copies import SIDE, thumbnail

MIN_IMAGES = 20
ENOUGH_FAKES = 381          # If none of so many is a copy, the share of copies is below 1 %.
FEWEST_GENERATED, MOST_GENERATED = 400, 5000


def open_training_set(train: str, test: str | None,
                      max_pixels: int | None = None) -> tuple[ImageSet, ImageSet | None]:
    """The training images of a data set, and held-out ones: its own test or val split, or another set."""
    splits = find_images(open_source(train, max_pixels=max_pixels))
    if "train" not in splits:
        raise RequestError(f"--train {train} has no training images, only {', '.join(splits)}; accepted: a "
                           "folder of images, or one with train/")
    others = splits if test is None else find_images(open_source(test, max_pixels=max_pixels))
    name = next((name for name in ("test", "val", "train") if name in others and
                 not (test is None and name == "train")), None)
    found, held_out = (None if each is None else ImageSet(each.source, each.names)
                       for each in (splits["train"], others.get(name or "")))
    assert found is not None
    return found, held_out


def check_numbers(**sets: ImageSet | None) -> None:
    """RequestError for a set of too few images."""
    for option, images in sets.items():
        if images is not None and len(images) < MIN_IMAGES:
            raise RequestError(f"--{option}: {len(images)} images are too few for a statement; {MIN_IMAGES} "
                               f"are needed, and {ENOUGH_FAKES} fakes can show that fewer than 1 % are "
                               "copies")


def number_generated(fake: str, n: int | None, train: int) -> int:
    """How many images a model makes, by default as many as trained it; RequestError if --fake is none."""
    if n is not None and not is_model(fake):
        raise RequestError(f"--n {n} is for --fake MODEL; {fake} is taken as a set of images")
    return n or min(max(train, FEWEST_GENERATED), MOST_GENERATED)


@contextmanager
def open_fakes(where: str, count: int, *, device: str, seed: int, progress: Progress,
               max_pixels: int | None = None) -> Iterator[tuple[ImageSet, dict[str, str]]]:
    """Images of a folder or zip, or `count` that a model makes from noise for this block.

    Yields:
        The images, and the feature networks that their model was trained with.
    """
    if not is_model(where):
        yield open_image_set(where, "--fake", max_pixels=max_pixels), dict(trained_with(where))
        return
    model = load(where, device)
    if model.recipe.sources:
        raise RequestError(f"--fake {where} translates images, and no sources are known; accepted: "
                           f"i2i translate {where} SOURCES --out DIR, and then --fake DIR")
    with temporary_folder() as folder:
        generate_set(model, plan_generation(where, model, seed=seed), folder / "fakes", count,
                     progress=lambda report: progress("generated", report.done, count))
        yield open_image_set(folder / "fakes", "--fake"), dict(model.header.get("feature_networks", {}))


@dataclass(frozen=True)
class ScannedSet:
    """What copies and near-duplicates are found by."""

    images: ImageSet
    thumbnails: Array           # (N, 64, 64, 3) uint8, memory-mapped.
    small: Array                # (N, 384) uint8, those of `i2i data check`.
    aspects: Array
    digests: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Array) -> "ScannedSet":
        """Some of the images, with their thumbnails in memory."""
        return ScannedSet(self.images.take(indices), self.thumbnails[indices], self.small[indices],
                          self.aspects[indices], [self.digests[int(i)] for i in indices])


def scan(images: ImageSet, file: Path, progress: Callable[[int], None]) -> ScannedSet:
    """Decode a set once, a few images at a time; its thumbnails go to a file."""
    def measure(image: Array) -> tuple[Array, Array, float, str]:
        return (thumbnail(image), make_thumbnail(DecodedImage(image, False), 0, 255),
                image.shape[1] / image.shape[0], pixel_digest(image))

    rest: list[tuple[Any, ...]] = []
    with open(file, "wb") as out:
        for large, *others in images.measure(measure, progress):
            out.write(large.tobytes())
            rest.append(tuple(others))
    small, aspects, digests = zip(*rest, strict=True)
    return ScannedSet(images, np.memmap(file, np.uint8, "r", shape=(len(images), SIDE, SIDE, 3)),
                      np.stack(small).reshape(-1, THUMBNAIL_SIZE), np.array(aspects), digests)


def without_overlap(test: ScannedSet, train: ScannedSet, warn: Callable[[str], None]) -> ScannedSet:
    """The held-out images that neither are training images nor look like them; the others are named."""
    known = {digest: i for i, digest in enumerate(train.digests)}
    twins = {i: known[digest] for i, digest in enumerate(test.digests) if digest in known}
    pairs, _ = near_duplicates(np.concatenate([train.small, test.small]),
                               np.concatenate([train.aspects, test.aspects]))
    n = len(train.digests)
    across = (pairs[:, 0] < n) & (pairs[:, 1] >= n)
    alike = {int(j) - n: int(i) for i, j in pairs[across] if int(j) - n not in twins}
    kept = np.array([i for i in range(len(test.digests)) if i not in twins and i not in alike], int)
    notes = []
    for found, what in ((twins, "are training images"), (alike, "look like training images")):
        for i in list(found)[:1]:
            notes.append(f"{len(found)} of {len(test.digests)} held-out images {what}, such as "
                         f"{test.images.source.path_of(test.images.names[i])} and "
                         f"{train.images.source.path_of(train.images.names[found[i]])}")
    if notes and len(kept) < MIN_IMAGES:
        raise RequestError(f"{'; '.join(notes)}: {len(kept)} are left, and {MIN_IMAGES} are needed that the "
                           "model was not trained on")
    for note in notes:
        warn(f"{note}; left out")
    return test.take(kept) if notes else test
