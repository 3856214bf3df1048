"""Translators applied one after the other."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from i2i.errors import RequestError
from i2i.images.convert import convert_tensors
from i2i.inference.model import Model
from i2i.inference.translator import Translator
from i2i.seeding import stable_seed


class Chain(Translator):
    """Translators as one: `Chain(load("sketch"), load("refine"), (load("style"), "ba"))`.

    Nothing is written or rounded between two stages; channels, alpha and range are converted as if the first
    had written files and the second had read them.  `formats` are the source format of the first stage ("a")
    and the target format of the last ("b").  RequestError if a stage cannot take what the one before makes.

    Args:
        stages: models, or (model, direction) where the direction is not "ab".
    """

    def __init__(self, *stages: Model | tuple[Model, str]) -> None:
        self.stages = [stage if isinstance(stage, tuple) else (stage, "ab") for stage in stages]
        if not self.stages:
            raise RequestError("a chain of no translators; accepted: one or more")
        ends = [[model.formats[side] for side in model.sides(direction)] for model, direction in self.stages]
        self.conversions = [(before[1], after[0]) for before, after in pairwise(ends)]
        self.formats = {"a": ends[0][0], "b": ends[-1][1]}
        self.multiple = max(model.multiple for model, _ in self.stages)
        for number, (made, accepted) in enumerate(self.conversions, 2):
            try:
                convert_tensors(torch.zeros(1, made.channels, 1, 1), made, accepted)
            except ValueError:
                raise RequestError(f"translator {number} of the chain takes {accepted}, which {made}, as the "
                                   "one before makes, cannot become") from None

    def sides(self, direction: str = "ab") -> tuple[str, str]:
        if direction != "ab":
            raise RequestError(f"direction {direction} of a chain; each of its translators has a direction "
                               "of its own")
        return "a", "b"

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """As a model does; with a seed, each stage samples other dropout, the first the same as alone."""
        self.sides(direction)
        for i, (model, stage_direction) in enumerate(self.stages):
            if i:
                images = convert_tensors(images, *self.conversions[i - 1])
            stage_seed = stable_seed(seed, i) if seed is not None and i else seed
            images = model(images, seed=stage_seed, direction=stage_direction)
        return images
