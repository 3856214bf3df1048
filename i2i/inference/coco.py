"""COCO annotations of generated images, each of which shows one object."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from i2i.data.sources import Unreadable, decode_bytes
from i2i.errors import JobError
from i2i.images.convert import to_8bit, to_rgb
from i2i.images.format import DecodedImage
from i2i.inference.generation_plan import GenerationPlan

ANNOTATIONS = "annotations.json"
WHITE = 24                  # Levels of 255 by which white may be missed.


def coco_annotations(plan: GenerationPlan, folder: Path, n: int) -> Iterator[str]:
    """The text of the COCO annotations of the first n images in a folder, of one object in each, in parts."""
    size = (0, 0)
    names = plan.classes or ("object",)
    yield '{"categories": ' + json.dumps([{"id": i, "name": name} for i, name in enumerate(names, 1)])
    yield ',\n"annotations": ['
    for index in range(n):
        path = folder / plan.file(index)
        try:
            image = decode_bytes(str(path), path.read_bytes())
        except Unreadable as error:
            raise JobError(f"{error}; remove it, and the same command makes it again") from None
        size, (box, source) = image.array.shape[:2], object_box(image)
        yield (",\n" if index else "\n") + json.dumps({
            "id": index + 1, "image_id": index + 1, "category_id": (plan.label(index) or 0) + 1, "bbox": box,
            "area": box[2] * box[3], "iscrowd": 0, "segmentation": [], "box_from": source})
    yield '\n],\n"images": ['
    for index in range(n):
        yield (",\n" if index else "\n") + json.dumps({
            "id": index + 1, "file_name": plan.file(index), "width": size[1], "height": size[0]})
    yield "\n]}\n"


def object_box(image: DecodedImage) -> tuple[list[int], str]:
    """The bounding box [x, y, width, height] of the object in an image, and what it was found by.

    "alpha": what is at least half opaque.  "nonwhite": what differs from white, if the border is white to
    within WHITE levels.  "image": all of it, as nothing says where the object is.
    """
    height, width = image.array.shape[:2]
    whole = [0, 0, width, height], "image"
    if image.array.dtype.kind == "f":
        return whole
    if image.alpha:
        inside, found = image.array[..., -1] > np.iinfo(image.array.dtype).max // 2, "alpha"
    else:
        inside, found = 255 - to_rgb(to_8bit(image)).min(2) > WHITE, "nonwhite"
        if inside[[0, -1]].any() or inside[:, [0, -1]].any():
            return whole
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not len(rows):
        return whole
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y], found
