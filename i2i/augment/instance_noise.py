"""Noise on what D sees, which makes room for images that are not yet like the real ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.registry import register


@register("instance_noise", "none")
class NoNoise(nn.Module):
    """D sees images without noise."""

    def forward(self, image: Tensor) -> Tensor:
        """NCHW -> NCHW"""
        return image


@register("instance_noise", "normal")
class InstanceNoise(nn.Module):
    """N(0, std) added to real and generated images alike: the two distributions then overlap, and D cannot
    tell them apart by what no image of the other kind could be.  Sønderby et al. 2017 (arXiv:1610.04490),
    section 3; Arjovsky and Bottou 2017 (arXiv:1701.04862), section 3.

    Linearly less, to none at the share `until` of the run.  Costs one draw for each pixel.
    """

    now: Tensor

    def __init__(self, *, std: float = 0.1, until: float = 1.0) -> None:
        super().__init__()
        require(std >= 0, "instance_noise.std", std, "0 or more; images are from -1 to 1")
        require(0 < until <= 1, "instance_noise.until", until, "more than 0, up to 1 (the whole run)")
        self.std, self.until = std, until
        self.register_buffer("now", torch.tensor(std))

    @torch.no_grad()
    def set_progress(self, progress: float) -> None:
        """Set the standard deviation for this share of the run."""
        self.now.fill_(self.std * max(0.0, 1 - progress / self.until))

    def forward(self, image: Tensor) -> Tensor:
        """NCHW -> NCHW"""
        return image + self.now.to(image.dtype) * torch.randn_like(image)
