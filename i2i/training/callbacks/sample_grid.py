"""The sample grid that shows the progress of a run."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from i2i.images.convert import make_grid
from i2i.recipes.base import Batch, Recipe
from i2i.seeding import seed_step

MAX_COLUMNS = 12
SAMPLE_SEED = 2**32 - 2         # The "step" whose seed is set before every grid.


@torch.no_grad()
def sample_grid(recipe: Recipe, modules: nn.ModuleDict, sample: Batch, device: torch.device,
                seed: int) -> NDArray[np.uint8]:
    """Sources, outputs and targets of the same inputs every time, as (H, W, C).

    An example is a, fake_b, b; or a, fake_b, b, fake_a with both directions; or fake_b alone from noise.
    Puts the modules into eval mode.
    """
    batch = {key: value.to(device) for key, value in sample.items()}
    seed_step(seed, 0, SAMPLE_SEED)
    modules.eval()
    outputs = recipe.generate(modules, batch)
    columns: dict[str, Tensor] = {}
    for key, image in outputs.items():
        if source := recipe.sources.get(key):
            columns[source] = batch[source]
        columns[key] = image.float()
    for key in outputs:
        side = recipe.targets[key]
        if side in batch:
            columns.setdefault(side, batch[side])
    images = [image for example in zip(*columns.values(), strict=True) for image in example]
    width = MAX_COLUMNS // len(columns) * len(columns)
    pixels: NDArray[Any] = make_grid([images[i:i + width] for i in range(0, len(images), width)])
    return pixels
