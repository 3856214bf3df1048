"""The picture that shows how far a run is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2i.images.formats import grid
from i2i.recipes.base import Batch, Recipe
from i2i.seeding import seed_step

COLUMNS = 12                   # In a row, at most.
SAMPLE_SEED = 2**32 - 2         # The "step" whose seed is set before every one of them.


@torch.no_grad()
def sample_grid(recipe: Recipe, modules: nn.ModuleDict, sample: Batch, device: torch.device,
                seed: int) -> np.ndarray[Any, Any]:
    """Each source, what is made of it, and the targets that are no sources, of the same inputs every time,
    from the averaged modules in eval mode: a, fake_b, b; or a, fake_b, b, fake_a; or what is made of noise.
    -> HWC uint8"""
    batch = {key: value.to(device) for key, value in sample.items()}
    seed_step(seed, 0, SAMPLE_SEED)
    modules.eval()
    made = recipe.generate(modules, batch)
    columns: dict[str, Tensor] = {}
    for key, image in made.items():
        source = recipe.sources.get(key)
        columns |= ({source: batch[source]} if source else {}) | {key: image.float()}
    columns |= {side: batch[side] for side in (recipe.targets[key] for key in made) if side in batch
                and side not in columns}
    row = [picture for example in zip(*columns.values(), strict=True) for picture in example]
    across = COLUMNS // len(columns) * len(columns)
    return grid([row[i:i + across] for i in range(0, len(row), across)])
