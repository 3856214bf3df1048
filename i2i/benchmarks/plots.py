"""Pictures of what generators make: points in the plane, panel by panel, and stacked pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from i2i.benchmarks.points import Points

# Pixels of a panel and of the line above it; panels in a row; drawn so much larger, then reduced.
PANEL, TITLE, ACROSS, SCALE = 150, 16, 6, 3
INK, PAPER, MODE = (31, 78, 161), (255, 255, 255), (214, 122, 92)
DOT = 0.6                                       # Radius in pixels.
PICTURES = 5                                    # Stacked pictures across and down in a panel.


def points_panel(points: NDArray[np.float32], target: Points) -> Image.Image:
    """Circles of three standard deviations, at least a pixel and a half, around the modes, and the points.
    N2 -> RGB"""
    side = PANEL * SCALE
    panel = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(panel)

    def place(x: float, y: float) -> tuple[float, float]:
        return (x / target.reach + 1) / 2 * side, (1 - y / target.reach) / 2 * side

    radius = max(1.5 * SCALE, 3 * target.std / target.reach / 2 * side)
    for mean in target.means:
        x, y = place(*mean)
        draw.ellipse((x - 2 * radius, y - 2 * radius, x + 2 * radius, y + 2 * radius), outline=MODE,
                     width=SCALE)
    for point in points[np.isfinite(points).all(1)].clip(-2 * target.reach, 2 * target.reach):
        x, y = place(*point)
        draw.ellipse((x - DOT * SCALE, y - DOT * SCALE, x + DOT * SCALE, y + DOT * SCALE), fill=INK)
    draw.rectangle((0, 0, side - 1, side - 1), outline=(200, 200, 200), width=SCALE)
    return panel.resize((PANEL, PANEL), Image.Resampling.LANCZOS)


def pictures_panel(pictures: NDArray[np.float32]) -> Image.Image:
    """The first stacked pictures as RGB.  N3HW in [-1, 1] -> RGB"""
    some = np.rint((pictures[:PICTURES**2].clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    n, height, width, _ = some.shape
    sheet = np.full((PICTURES, height, PICTURES, width, 3), 255, np.uint8)
    for i in range(n):
        sheet[i // PICTURES, :, i % PICTURES] = some[i]
    whole = Image.fromarray(sheet.reshape(PICTURES * height, PICTURES * width, 3))
    return whole.resize((PANEL, PANEL), Image.Resampling.LANCZOS)


def sheet(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Panels under their names, a few in a row.  -> a picture of 64 colors"""
    down = -(-len(panels) // ACROSS)
    across = min(ACROSS, len(panels))
    whole = Image.new("RGB", (across * (PANEL + 4) + 4, down * (PANEL + TITLE + 4) + 4), PAPER)
    draw = ImageDraw.Draw(whole)
    for i, (name, panel) in enumerate(panels):
        x, y = 4 + i % ACROSS * (PANEL + 4), 4 + i // ACROSS * (PANEL + TITLE + 4)
        draw.text((x + 2, y + 1), name, fill=(40, 40, 40))
        whole.paste(panel, (x, y + TITLE))
    return whole.quantize(64)
