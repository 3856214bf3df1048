"""Instance noise: Gaussian noise on the discriminator's inputs."""

from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.registry import register


@register("instance_noise", "none")
class NoNoise(nn.Identity):
    """Leave the images that D sees as they are."""


@register("instance_noise", "normal")
class InstanceNoise(nn.Module):
    """Noise N(0, std) on real and generated images.  Sønderby et al. 2017 (arXiv:1610.04490), section 3."""

    std: Tensor

    def __init__(self, *,
                 std: Annotated[float, Doc("Initial standard deviation; images are from -1 to 1")] = 0.1,
                 until: Annotated[float, Doc(
                     "Share of the run at which it has decayed linearly to 0")] = 1.0) -> None:
        super().__init__()
        require(std >= 0, "instance_noise.std", std, "0 or more; images are from -1 to 1")
        require(0 < until <= 1, "instance_noise.until", until, "more than 0, up to 1 (the whole run)")
        self.initial_std, self.until = std, until
        self.register_buffer("std", torch.tensor(std))

    @torch.no_grad()
    def set_progress(self, progress: float) -> None:
        """Set the standard deviation for this share of the run."""
        self.std.fill_(self.initial_std * max(0.0, 1 - progress / self.until))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.std.to(image.dtype) * torch.randn_like(image)
