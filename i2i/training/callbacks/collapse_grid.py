"""The picture that shows a collapse: generated pictures, those that another one repeats in a frame, beside
real ones; the nearest pairs below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from i2i.data.sampler import evenly_spaced
from i2i.training.callbacks.embedding import to_levels

Sheet = NDArray[np.uint8]
ACROSS, DOWN = 8, 6         # Pictures in a block,
PAIRS = 8                   # and pairs below it.
SIDE = 128                  # Larger pictures are shown at this size: the sheet is looked at, not measured.
FRAME = (214, 39, 40)       # Around pictures that another one repeats.
TITLE, GAP = 16, 4          # Pixels above a block, and between pictures.


def sheet(made: Tensor, beside: Mapping[str, Tensor], pairs: NDArray[Any]) -> Sheet:
    """Blocks side by side: inputs if there are any, what was made, real pictures.  `beside` holds those shown
    alone.  NCHW, MCHW, P×2 -> HWC uint8"""
    repeated = set(np.unique(pairs).tolist())
    chosen = select_rows(len(made))
    title = f"generated; in a frame: {sum(i in repeated for i in chosen)} of {len(chosen)} have a near-duplicate"
    blocks = {title: [small(made[i], framed=i in repeated) for i in chosen]}
    others = {name: [small(image) for image in images] for name, images in beside.items()}
    order = {name: pictures for name,
             pictures in others.items() if name == "inputs"} | blocks | {"real": others["real"]}
    above = np.concatenate([block(name, pictures, ACROSS) for name, pictures in order.items()], 1)
    if not len(pairs):
        return above
    nearest = few_rows(pairs)
    row = block("nearest pairs, one above the other", [small(made[i]) for i in nearest.T.flatten()],
                len(nearest))
    below = np.full((row.shape[0], above.shape[1], 3), 255, np.uint8)
    width = min(row.shape[1], above.shape[1])
    below[:, :width] = row[:, :width]
    return np.concatenate([above, below])


def select_rows(count: int) -> list[int]:
    """The places of the pictures on the sheet, spread over all: so over all classes, which come one after the
    other."""
    return evenly_spaced(count, ACROSS * DOWN)


def reduced(images: Tensor) -> Tensor:
    """No larger than they are shown, on the CPU.  NCHW -> NCH'W'"""
    scale = SIDE / max(images.shape[-2:])
    small = images.float() if scale >= 1 else F.interpolate(images.float(), scale_factor=scale, mode="area")
    return small.cpu()


def few_rows(pairs: NDArray[Any]) -> NDArray[Any]:
    """Pairs of pictures that are not shown yet, nearest first.  P×2 -> Q×2"""
    seen: set[int] = set()
    out: list[list[int]] = []
    for pair in pairs.tolist():
        if not seen & set(pair) and len(out) < PAIRS:
            seen |= set(pair)
            out.append(pair)
    return np.array(out)


def small(image: Tensor, *, framed: bool = False) -> Sheet:
    """A picture in its frame.  CHW -> HW3"""
    picture = Image.fromarray(to_levels(image))
    out = np.full((picture.height + 2 * GAP, picture.width + 2 * GAP, 3), FRAME if framed else 255, np.uint8)
    out[GAP - 1:-GAP + 1, GAP - 1:-GAP + 1] = 255
    out[GAP:-GAP, GAP:-GAP] = np.asarray(picture)
    return out


def block(title: str, pictures: list[Sheet], across: int) -> Sheet:
    """Rows of equally large pictures under a title."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // across)
    out = np.full((TITLE + rows * height, across * width + 2 * GAP, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = TITLE + i // across * height, GAP + i % across * width
        out[y:y + height, x:x + width] = picture
    canvas = Image.fromarray(out)
    ImageDraw.Draw(canvas).text((GAP, 2), title, fill=(0, 0, 0))
    return np.asarray(canvas)
