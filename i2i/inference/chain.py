"""Translators one after the other, each refining what the one before has made."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from i2i.errors import RequestError
from i2i.images.formats import convert_tensors
from i2i.inference.model import Model, Translator
from i2i.seeding import stable_seed


class Chain(Translator):
    """`Chain(load("sketch"), load("refine"), (load("style"), "ba"))`: translators as one, each with its
    direction, "ab" unless said.

    Between two of them nothing is written or rounded; colors, alpha and ranges are brought from what one
    makes to what the next has learned as if the first had written files and the second had read them, and
    levels that no file of its kind would hold are clamped.  Finished models are joined: they were not trained
    together, as those of Huang et al. 2017 (Stacked GAN) and Zhang et al. 2017 (StackGAN) are.

    It leads from the first one's source ("a") to the last one's target ("b").  RequestError where one cannot
    take what the one before makes.
    """

    def __init__(self, *stages: Model | tuple[Model, str]) -> None:
        self.stages = [stage if isinstance(stage, tuple) else (stage, "ab") for stage in stages]
        if not self.stages:
            raise RequestError("a chain of no translators; accepted: one or more")
        ends = [tuple(model.kinds[side] for side in model.sides(direction)) for model,
                direction in self.stages]
        self.seams = [(made, taken) for (_, made), (taken, _) in pairwise(ends)]
        self.kinds = {"a": ends[0][0], "b": ends[-1][1]}
        self.multiple = max(model.multiple for model, _ in self.stages)
        for number, (made, taken) in enumerate(self.seams, 2):
            try:
                convert_tensors(torch.zeros(1, made.channels, 1, 1), made, taken)
            except ValueError:
                raise RequestError(f"translator {number} of the chain takes {taken}, which {made}, as the "
                                   "one before makes, cannot become") from None

    def sides(self, direction: str = "ab") -> tuple[str, str]:
        """From the first source to the last target.  RequestError for another direction: each translator has
        its own"""
        if direction != "ab":
            raise RequestError(f"direction {direction} of a chain; each of its translators has a direction "
                               "of its own")
        return "a", "b"

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """Any H and W.  NCHW in [-1, 1] -> NC'HW in [-1, 1]

        With a seed, dropout is drawn from it: the first translator draws what it would alone, the others
        something else.
        """
        self.sides(direction)
        for number, (model, way) in enumerate(self.stages):
            if number:
                images = convert_tensors(images, *self.seams[number - 1])
            images = model(images, seed=stable_seed(seed, number) if seed is not None and number else seed,
                           direction=way)
        return images
