"""The interface of augmentations, and helpers to apply a policy of transforms."""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.precision import fp32_island, to_float32
from i2i.registry import register

# (N, C, H, W) -> (N, C, H, W), in float32, with all random numbers already drawn.
Transform = Callable[[Tensor], Tensor]
# Number of images, device -> a transform with fresh random numbers per image.
TransformFactory = Callable[[int, torch.device], Transform]


@register("augment", "none")
class Augment(nn.Module):
    """No augmentation; the base class of all others.

    Attributes:
        synced_buffers: buffers that the engine averages over processes after each step.
        adaptive: whether it uses D's outputs for real images (`observe`).
    """

    synced_buffers: ClassVar[tuple[str, ...]] = ()
    adaptive: bool = False

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Augment images (N, C, H, W) of one size in the same way, such as source and target."""
        return images

    def check(self, channels: tuple[int, ...], size: tuple[int, int], *, twice: bool) -> None:
        """Raise RequestError if images of these channels cannot be augmented together.

        Args:
            channels: those of the images of one call.
            size: height and width of the images.
            twice: whether second derivatives are needed, as by gradient penalties.
        """

    def observe(self, real_logits: Tensor, batch_size: int | None = None) -> None:
        """Adapt to D's logits of augmented real images, above 0 for real; called once per step.

        Args:
            real_logits: those of this process.
            batch_size: images per step over all processes; default `len(real_logits)`.
        """

    def logs(self) -> dict[str, Tensor]:
        """Values for the log."""
        return {}


def check_policy(policy: tuple[str, ...], known: Iterable[str]) -> None:
    """Raise RequestError unless a policy consists of known names, each once."""
    valid = bool(policy) and set(policy) <= set(known) and len(set(policy)) == len(policy)
    require(valid, "augment.policy", ",".join(policy), f"one or more of {','.join(known)}")


def apply_policy(images: tuple[Tensor, ...], policy: tuple[str, ...],
                 factories: Mapping[str, TransformFactory]) -> tuple[Tensor, ...]:
    """Apply the transforms of a policy, in the order of `factories`, with the same random numbers to all
    images; in float32, as half precision has fewer levels than an image.
    """
    device = images[0].device
    with fp32_island(images[0]):
        transforms = [make(len(images[0]), device) for name, make in factories.items() if name in policy]
        out = []
        for image in images:
            x = to_float32(image)
            for transform in transforms:
                x = transform(x)
            out.append(x.to(image.dtype))
        return tuple(out)


def per_image(values: Tensor) -> Tensor:
    """(N) -> (N, 1, 1, 1)"""
    return values[:, None, None, None]
