"""What all augmentations have in common, which is the interface; and none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.registry import register

# NCHW in single precision at least -> NCHW.  Its draws, one set for each n, are made.
Transform = Callable[[Tensor], Tensor]


@register("augment", "none")
class Augment(nn.Module):
    """D sees images as they are."""

    # Buffers that the engine averages over processes after each step.
    synced_buffers: ClassVar[tuple[str, ...]] = ()
    adaptive: bool = False                        # Whether it listens to what D says of real images.

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Images that belong together, of one size, varied together, each n in its own way; differentiable
        twice.  NCHW, … -> (NCHW, …)"""
        return images

    def observe(self, real_logits: Tensor, images: int | None = None) -> None:
        """Once a step, what D says of real images it saw through this: above 0 for real.  `images`: how many
        the step showed in all processes."""

    def logs(self) -> dict[str, Tensor]:
        """What is worth a place in the log."""
        return {}


def check_policy(policy: tuple[str, ...], known: Iterable[str]) -> None:
    """RequestError unless a policy is made of known words, each once."""
    require(bool(policy) and set(policy) <= set(known) and len(set(policy)) == len(policy), "augment.policy",
            ",".join(policy),
            f"one or more of {','.join(known)}")


def apply_policy(images: tuple[Tensor, ...], policy: tuple[str, ...],
                 makers: Mapping[str, Callable[[int, torch.device], Transform]]) -> tuple[Tensor, ...]:
    """All images after the changes of a policy, in its makers' order; drawn once, so they move together.

    In single precision at least, whatever the step around it runs in: half precision has less depth than a
    picture.
    """
    device = images[0].device
    with torch.autocast(device.type,
                        enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext():
        changes = [make(len(images[0]), device) for name, make in makers.items() if name in policy]
        return tuple(_applied(image, changes) for image in images)


def _applied(image: Tensor, changes: list[Transform]) -> Tensor:
    x = image.to(torch.promote_types(image.dtype, torch.float32))
    for change in changes:
        x = change(x)
    return x.to(image.dtype)


def per_image(values: Tensor) -> Tensor:
    """One number for each image, against NCHW.  N -> N111"""
    return values[:, None, None, None]
