"""The image that shows a collapse: generated and real images, near-duplicates framed and in pairs below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from i2i.data.sampler import evenly_spaced
from i2i.training.callbacks.embedding import to_uint8

Pixels = NDArray[np.uint8]      # (H, W, 3).
COLUMNS, ROWS = 8, 6            # Of images in a block.
MAX_PAIRS = 8
MAX_SIDE = 128                  # Larger images are shrunk.
FRAME_COLOR = (214, 39, 40)
TITLE_HEIGHT, GAP = 16, 4       # Pixels.


def collapse_grid(generated: Tensor, others: Mapping[str, Tensor], duplicates: NDArray[Any]) -> Pixels:
    """Blocks of inputs (if any), generated and real images side by side, and the nearest pairs below.

    Args:
        generated: (N, C, H, W).
        others: "real" and possibly "inputs", (M, C, H, W) each, all of which are shown.
        duplicates: pairs of near-duplicates in `generated`, nearest first, (P, 2).

    Returns:
        (H, W, 3) uint8.
    """
    repeated, shown = set(np.unique(duplicates).tolist()), choose_rows(len(generated))
    title = f"generated; framed: {len(repeated & set(shown))} of {len(shown)} have a near-duplicate"
    blocks = {title: [tile(generated[i], framed=i in repeated) for i in shown]}
    tiles = {name: [tile(image) for image in images] for name, images in others.items()}
    inputs = {name: images for name, images in tiles.items() if name == "inputs"}
    ordered = inputs | blocks | {"real": tiles["real"]}
    top = np.concatenate([block(name, images, COLUMNS) for name, images in ordered.items()], 1)
    if not len(duplicates):
        return top
    pairs = disjoint_pairs(duplicates)
    row = block("nearest pairs, one above the other", [tile(generated[i]) for i in pairs.T.flatten()],
                len(pairs))
    bottom = np.full((row.shape[0], top.shape[1], 3), 255, np.uint8)
    width = min(row.shape[1], top.shape[1])
    bottom[:, :width] = row[:, :width]
    return np.concatenate([top, bottom])


def choose_rows(count: int) -> list[int]:
    """The indices of the images in a block, evenly spaced and so from all classes."""
    return evenly_spaced(count, COLUMNS * ROWS)


def shrink(images: Tensor) -> Tensor:
    """Images (N, C, H, W) no larger than they are shown, on the CPU."""
    scale = MAX_SIDE / max(images.shape[-2:])
    images = images.float() if scale >= 1 else F.interpolate(images.float(), scale_factor=scale, mode="area")
    return images.cpu()


def disjoint_pairs(pairs: NDArray[Any]) -> NDArray[Any]:
    """The first pairs that have no image in common, (P, 2) -> (Q, 2)."""
    seen: set[int] = set()
    chosen: list[list[int]] = []
    for pair in pairs.tolist():
        if not seen & set(pair) and len(chosen) < MAX_PAIRS:
            seen |= set(pair)
            chosen.append(pair)
    return np.array(chosen)


def tile(image: Tensor, *, framed: bool = False) -> Pixels:
    """An image (C, H, W) with a margin, in which a frame is drawn."""
    pixels = to_uint8(image)
    framed_pixels = np.full((pixels.shape[0] + 2 * GAP, pixels.shape[1] + 2 * GAP, 3),
                            FRAME_COLOR if framed else 255, np.uint8)
    framed_pixels[GAP - 1:-GAP + 1, GAP - 1:-GAP + 1] = 255
    framed_pixels[GAP:-GAP, GAP:-GAP] = pixels
    return framed_pixels


def block(title: str, tiles: Sequence[Pixels], columns: int) -> Pixels:
    """Rows of equally large tiles under a title."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    pixels = np.full((TITLE_HEIGHT + rows * height, columns * width + 2 * GAP, 3), 255, np.uint8)
    for i, each in enumerate(tiles):
        y, x = TITLE_HEIGHT + i // columns * height, GAP + i % columns * width
        pixels[y:y + height, x:x + width] = each
    canvas = Image.fromarray(pixels)
    ImageDraw.Draw(canvas).text((GAP, 2), title, fill=(0, 0, 0))
    return np.asarray(canvas)
