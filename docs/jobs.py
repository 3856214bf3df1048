"""The picture at the top of the README: what the bundled models do, on images that none has seen.

    python docs/jobs.py

Outlines colored by `personas-color`, dark hair turned red by `lorelei-hair`, both with the inputs above, and
people from noise by `peeps`.  The inputs are the first of each test split; nothing is selected.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from i2i import load
from i2i.data.sources import bundled_datasets, image_names, open_source
from i2i.data.sources.base import load_image

COLUMNS, GAP = 12, 12


def first_images(dataset: str, folder: str) -> list[np.ndarray]:
    """The first images of a bundled data set's folder, (H, W, 3) uint8."""
    source = open_source(f"{bundled_datasets()[dataset]}/{folder}")
    return [load_image(source, name).array for name in image_names(source)[:COLUMNS]]


def main() -> None:
    """Write docs/jobs.png."""
    drawings = [strip[:, :strip.shape[1] // 2] for strip in first_images("personas-edges-64", "test")]
    people, generator = first_images("lorelei-hair-64", "testA"), load("peeps", device="cpu")
    made = [generator.generate(1, labels=i % len(generator.classes), seed=i)[0] for i in range(COLUMNS)]
    made = [((image.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8) for image in made]
    rows = [drawings, load("personas-color", device="cpu").translate(drawings), people,
            load("lorelei-hair", device="cpu").translate(people), made]
    height = 64 * len(rows) + 2 * GAP
    sheet = np.full((height, 64 * COLUMNS, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        y = 64 * i + GAP * (i // 2)
        for j, image in enumerate(row):
            sheet[y:y + 64, 64 * j:64 * (j + 1)] = image
    Image.fromarray(sheet).quantize(256).save(Path(__file__).with_name("jobs.png"), optimize=True)


if __name__ == "__main__":
    main()
