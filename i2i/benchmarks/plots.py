"""Plots of generated samples: points in the plane and stacked images, a panel for each method."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from i2i.benchmarks.mixtures import Mixture

PANEL, TITLE, COLUMNS = 150, 16, 6      # Pixels of a panel and of its title; panels in a row.
OVERSAMPLING = 3                        # Panels are drawn so much larger, then reduced.
POINT_COLOR, BACKGROUND, MODE_COLOR = (31, 78, 161), (255, 255, 255), (214, 122, 92)
POINT_RADIUS = 0.6                      # Pixels.
IMAGES_ACROSS = 5                       # Stacked images in a row and column of a panel.


def points_panel(points: NDArray[np.float32], target: Mixture) -> Image.Image:
    """Points `(N, 2)`, and a circle of three standard deviations (1.5 pixels or more) around each mode."""
    side = PANEL * OVERSAMPLING
    panel = Image.new("RGB", (side, side), BACKGROUND)
    draw = ImageDraw.Draw(panel)

    def circle(center: NDArray[np.floating], radius: float) -> tuple[float, float, float, float]:
        x, y = (center[0] / target.extent + 1) / 2 * side, (1 - center[1] / target.extent) / 2 * side
        return x - radius, y - radius, x + radius, y + radius

    radius = max(1.5 * OVERSAMPLING, 3 * target.std / target.extent / 2 * side)
    for mean in target.means:
        draw.ellipse(circle(mean, 2 * radius), outline=MODE_COLOR, width=OVERSAMPLING)
    for point in points[np.isfinite(points).all(1)].clip(-2 * target.extent, 2 * target.extent):
        draw.ellipse(circle(point, POINT_RADIUS * OVERSAMPLING), fill=POINT_COLOR)
    draw.rectangle((0, 0, side - 1, side - 1), outline=(200, 200, 200), width=OVERSAMPLING)
    return panel.resize((PANEL, PANEL), Image.Resampling.LANCZOS)


def images_panel(images: NDArray[np.float32]) -> Image.Image:
    """The first images `(N, 3, H, W)` in [-1, 1], in a square."""
    levels = np.rint((images[:IMAGES_ACROSS**2].clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    n, _, height, width = levels.shape
    square = np.full((IMAGES_ACROSS, height, IMAGES_ACROSS, width, 3), 255, np.uint8)
    for i in range(n):
        square[i // IMAGES_ACROSS, :, i % IMAGES_ACROSS] = levels[i].transpose(1, 2, 0)
    panel = Image.fromarray(square.reshape(IMAGES_ACROSS * height, IMAGES_ACROSS * width, 3))
    return panel.resize((PANEL, PANEL), Image.Resampling.LANCZOS)


def arrange(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Titled panels in rows, quantized to 64 colors."""
    columns, rows = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
    plot = Image.new("RGB", (columns * (PANEL + 4) + 4, rows * (PANEL + TITLE + 4) + 4), BACKGROUND)
    draw = ImageDraw.Draw(plot)
    for i, (title, panel) in enumerate(panels):
        x, y = 4 + i % COLUMNS * (PANEL + 4), 4 + i // COLUMNS * (PANEL + TITLE + 4)
        draw.text((x + 2, y + 1), title, fill=(40, 40, 40))
        plot.paste(panel, (x, y + TITLE))
    return plot.quantize(64)
