"""How often pictures that are alike are found, and how often others are taken for it, on the bundled data
sets: python bench/near.py

Alike: the same picture encoded again, resized, or made lighter.  Others: all pairs of different pictures, and
how many are told.
"""

import io
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

from i2i.data.check import duplicates
from i2i.data.check.file_facts import FileFacts, examine_file, make_thumbnail
from i2i.data.sources import bundled_datasets, decode_bytes, open_source
from i2i.images.format import DecodedImage


def encoded(image: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, kind, **options)
    return Image.open(buffer)


def resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)),
                                      Image.Resampling.LANCZOS)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 90": lambda image: encoded(image, "jpeg", quality=90),
    "JPEG 75": lambda image: encoded(image, "jpeg", quality=75),
    "JPEG 50": lambda image: encoded(image, "jpeg", quality=50),
    "WebP 75": lambda image: encoded(image, "webp", quality=75),
    "half size": resized(0.5), "1.5 times": resized(1.5), "double": resized(2.0),
    "5 % darker": lambda image: image.point(lambda value: 0.95 * value),
    "moved a pixel": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0),
                                                   fillcolor=(255,) * len(image.getbands())),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)}


def thumb(image: Image.Image) -> np.ndarray:
    return make_thumbnail(DecodedImage(np.asarray(image)), 0, 255)


def main() -> None:
    for name in sys.argv[1:] or bundled_datasets():
        source = open_source(name)
        seen = [(each, picture) for each in source.names()
                if isinstance(picture := examine_file(source, each), FileFacts) and not picture.flat]
        thumbs = np.stack([picture.thumbnail for _, picture in seen])
        aspects = np.array([picture.width / picture.height for _, picture in seen])
        digest = [picture.digest for _, picture in seen]
        found = [(i, j, levels) for (i, j),
                 levels in zip(*duplicates.near_duplicates(thumbs, aspects), strict=True)
                 if digest[i] != digest[j]]
        n = len(seen)
        print(f"{name}: {len(found)} of {n * (n - 1) // 2:,} pairs of {n:,} pictures are told")
        for i, j, levels in found:
            print(f"    {seen[i][0]} ~ {seen[j][0]} ({levels:.2f})")
        chosen = range(0, n, 5)
        images = [Image.fromarray(decode_bytes(seen[i][0], source.read(seen[i][0])).array) for i in chosen]
        for word, change in CHANGES.items():
            changed = np.stack([thumb(change(image)) for image in images])
            pairs = set(map(tuple,
                            duplicates.near_duplicates(np.concatenate([thumbs, changed]),
                                                       np.concatenate([aspects,
                                                                       aspects[list(chosen)]]))[0].tolist()))
            print(f"    {word:14}{sum((i, n + place) in pairs for place, i in enumerate(chosen)) / len(images):6.1%} found")


if __name__ == "__main__":
    main()
