"""What belongs to a checkpoint: the sample grid that shows the progress of a run, and the training state."""

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from i2i.files import failpoint, write_atomically
from i2i.images.convert import make_grid
from i2i.recipes.base import Batch, Recipe
from i2i.seeding import seed_step
from i2i.training.callbacks.base import Callback
from i2i.training.trainer import Trainer

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


class SampleGrid(Callback):
    """Saves the outputs for the same inputs at each checkpoint."""

    def __init__(self, sample: Batch) -> None:
        self.sample = sample

    def on_checkpoint(self, trainer: Trainer) -> None:
        path = trainer.folder.sample(trainer.images)
        grid = None if path.exists() else trainer.unless_interrupted(lambda: sample_grid(
            trainer.recipe, trainer.ema_modules, self.sample, trainer.device, trainer.config.seed))
        if grid is not None:
            save = partial(Image.fromarray(grid).save, format="png")
            trainer.writer.submit(partial(write_atomically, path, save))
        failpoint("after-sample-grid")


class StateSaver(Callback):
    """Saves model and training state at each checkpoint.  The one callback that all processes call."""

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.state.saved_step != trainer.state.step:
            trainer.save()
        failpoint("after-save")


class ModelKeeper(Callback):
    """Keeps the models of checkpoints, as many as `train.keep_models` says."""

    def on_checkpoint(self, trainer: Trainer) -> None:
        keep, folder, images = trainer.config.keep_models, trainer.folder, trainer.images
        if not images or keep == "0":
            return
        if not (path := folder.model_at(images)).exists():
            trainer.state.save_model(path, trainer.writer)
        if keep != "every":
            trainer.writer.submit(partial(folder.retire_models, images, int(keep)))
