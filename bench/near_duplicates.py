"""Count the near-duplicates that are found in the bundled data sets, and the other images taken for them.

    python bench/near_duplicates.py [DATASET …]

Near-duplicates: the same image encoded again, resized or made darker.  Others: all pairs of different images.
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


def encoded(image: Image.Image, file_format: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, file_format, **options)
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
    "shifted a pixel": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0),
                                                     fillcolor=(255,) * len(image.getbands())),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)}


def thumbnail_of(image: Image.Image) -> np.ndarray:
    return make_thumbnail(DecodedImage(np.asarray(image)), 0, 255)


def main() -> None:
    for dataset in sys.argv[1:] or bundled_datasets():
        source = open_source(dataset)
        files = [(name, facts) for name in source.names()
                 if isinstance(facts := examine_file(source, name), FileFacts) and not facts.flat]
        thumbs = np.stack([facts.thumbnail for _, facts in files])
        aspects = np.array([facts.width / facts.height for _, facts in files])
        pairs, distances = duplicates.near_duplicates(thumbs, aspects)
        found = [(i, j, levels) for (i, j), levels in zip(pairs, distances, strict=True)
                 if files[i][1].digest != files[j][1].digest]
        n = len(files)
        print(f"{dataset}: {len(found)} of {n * (n - 1) // 2:,} pairs of {n:,} images are reported")
        for i, j, levels in found:
            print(f"    {files[i][0]} ~ {files[j][0]} ({levels:.2f})")
        chosen = range(0, n, 5)
        images = [Image.fromarray(decode_bytes(files[i][0], source.read(files[i][0])).array) for i in chosen]
        both_aspects = np.concatenate([aspects, aspects[list(chosen)]])
        for change, apply in CHANGES.items():
            both = np.concatenate([thumbs, np.stack([thumbnail_of(apply(image)) for image in images])])
            reported = set(map(tuple, duplicates.near_duplicates(both, both_aspects)[0].tolist()))
            hits = sum((i, n + k) in reported for k, i in enumerate(chosen))
            print(f"    {change:16}{hits / len(images):6.1%} found")


if __name__ == "__main__":
    main()
