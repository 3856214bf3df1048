"""The labeled sets of `i2i worth` as small images in memory, and what is wrong with them."""

import hashlib
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from i2i.data.image_set import ImageSet, pixel_digest
from i2i.data.labeled import ImageDataset, find_images
from i2i.data.sources import open_source
from i2i.errors import RequestError
from i2i.images.format import Array
from i2i.metrics.copies import thumbnail

MIN_IMAGES, MIN_OF_CLASS = 20, 2
ENOUGH_TESTED = 628     # They show a gain of 5 points if two trainings differ in one of five answers.
HELD_OUT_SHARE = 0.25
MAX_SIDE = 64       # Of the images that are classified, by default.
LABELED = "two or more class folders, dataset.json with labels, or a manifest"


@dataclass(frozen=True)
class LabeledImages:
    """Images of one size, (N, S, S, 3) uint8, with class numbers (N,)."""

    pixels: Array
    labels: Array
    digests: Sequence[str]      # Of the pixels of the whole images.
    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | Array) -> "LabeledImages":
        """Some of the images."""
        return LabeledImages(self.pixels[indices], self.labels[indices], [self.digests[i] for i in indices],
                             [self.paths[i] for i in indices])

    def counts(self, classes: int) -> Array:
        """How many images each class has."""
        return np.bincount(self.labels, minlength=classes)

    @property
    def content(self) -> str:
        """A hash of images and labels, whatever their order and names."""
        rows = sorted(zip(self.digests, self.labels.tolist(), strict=True))
        return hashlib.sha256(repr(rows).encode()).hexdigest()


def open_labeled(where: str, option: str, max_pixels: int | None = None) -> ImageDataset:
    """The training images of a labeled set, or its test or validation images if it has no others."""
    splits = find_images(open_source(where, max_pixels=max_pixels))
    return choose_labeled(splits, ("train", "test", "val"), where, option) or next(iter(splits.values()))


def choose_labeled(splits: Mapping[str, ImageDataset], names: Sequence[str], where: str,
                   option: str) -> ImageDataset | None:
    """The first of some splits that there is; RequestError if its images have no classes."""
    split = next((splits[name] for name in names if name in splits), None)
    if split is not None and split.labels is None:
        folder, *others = {posixpath.dirname(name) for name in split.names}
        why = split.note or ("" if others else f"all lie in {split.source.path_of(folder).rstrip('/')}")
        raise RequestError(f"{option} {where}: its images have no classes{': ' * bool(why)}{why}; accepted: "
                           f"{LABELED}")
    return split


def class_names(real: ImageDataset) -> tuple[str, ...]:
    """The classes that have images; RequestError if that is one."""
    classes = real.learned_classes
    if len(classes) < 2:
        raise RequestError(f"--real {real.source.root}: all images are of one class, {classes[0]}; "
                           "accepted: two or more classes")
    return classes


def default_size(*sets: ImageDataset) -> int:
    """The shortest side of the first images, at most MAX_SIDE."""
    return min(MAX_SIDE, *(min(ImageSet(each.source, each.names).read(0).shape[:2]) for each in sets))


def read_labeled(images: ImageDataset, option: str, classes: Sequence[str], size: int,
                 progress: Callable[[int], None] = lambda done: None) -> LabeledImages:
    """Decode the middle squares of a set; RequestError if its classes are not those of the real images."""
    assert images.labels is not None
    check_classes(option, [images.classes[i] for i in np.unique(images.labels)], classes)
    found = ImageSet(images.source, images.names).measure(
        lambda image: (thumbnail(image, size), pixel_digest(image)), progress)
    pixels, digests = zip(*found, strict=True)
    numbers = np.array([classes.index(images.classes[i]) for i in images.labels], np.int64)
    return LabeledImages(np.stack(pixels), numbers, digests,
                         [images.source.path_of(name) for name in images.names])


def check_classes(option: str, found: Sequence[str], classes: Sequence[str]) -> None:
    """RequestError if a set lacks a class of the real training images, or has another."""
    for names, others, text in ((found, classes, "has a class {} that the real training images do not have"),
                                (classes, found, "has no images of class {}")):
        if differing := [name for name in names if name not in others]:
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise RequestError(f"{option} {text.format(differing[0] + more)}; those of --real are "
                               f"{', '.join(classes[:8])}{' …' * (len(classes) > 8)}")


def hold_out(real: LabeledImages, seed: int) -> tuple[LabeledImages, LabeledImages]:
    """Divide into training and test images, a quarter of each class."""
    order = np.random.default_rng(seed).permutation(len(real))
    chosen = np.zeros(len(real), bool)
    for number in np.unique(real.labels):
        of_class = order[real.labels[order] == number]
        chosen[of_class[:max(1, round(HELD_OUT_SHARE * len(of_class)))]] = True
    return real.take(np.flatnonzero(~chosen)), real.take(np.flatnonzero(chosen))


def without_test_images(images: LabeledImages, test: LabeledImages, what: str,
                        warn: Callable[[str], None]) -> LabeledImages:
    """The images of a set that are no test images, by content; the others are named."""
    known = {digest: i for i, digest in enumerate(test.digests)}
    same = [i for i, digest in enumerate(images.digests) if digest in known]
    if not same:
        return images
    warn(f"{len(same)} of {len(images)} {what} are test images, such as {images.paths[same[0]]} and "
         f"{test.paths[known[images.digests[same[0]]]]}; they are not trained with")
    return images.take(np.setdiff1d(np.arange(len(images)), same))


def check_numbers(option: str, images: LabeledImages, classes: Sequence[str]) -> None:
    """RequestError if there are too few images for a statement."""
    counts = images.counts(len(classes))
    if len(images) < MIN_IMAGES:
        raise RequestError(f"{option}: {len(images)} images are too few for a statement; {MIN_IMAGES} are "
                           f"needed, and {ENOUGH_TESTED} test images can show a gain of 5 points")
    if counts.min() < MIN_OF_CLASS:
        raise RequestError(f"{option}: {counts.min()} images of class {classes[int(counts.argmin())]} are "
                           f"too few for a statement; {MIN_OF_CLASS} of each class are needed")


def choose(images: LabeledImages, counts: Array, seed: int) -> Array:
    """Indices of so many images of each class; fewer are the first of more."""
    order = np.random.default_rng(seed).permutation(len(images))
    return np.concatenate([order[images.labels[order] == number][:count]
                           for number, count in enumerate(counts)])
