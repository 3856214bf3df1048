"""Label maps as the input of a network: one channel for each class, and the edges of instances."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OneHot(nn.Module):
    """Label maps of known colors -> one channel for each color: 1 where it is the nearest, else 0.

    Args:
        colors: a tuple of values for each class.
    """

    colors: Tensor

    def __init__(self, colors: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.register_buffer("colors", torch.tensor(colors))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, number of colors, H, W)"""
        distances = x.new_zeros(())
        for channel, levels in enumerate(self.colors.unbind(1)):        # Not all at once: memory.
            distances = distances + (x[:, channel, None] - levels[:, None, None]).abs()
        classes = torch.arange(len(self.colors), device=x.device)[:, None, None]
        return (distances.argmin(1, keepdim=True) == classes).to(x.dtype)


def instance_edges(instances: Tensor) -> Tensor:
    """1 at pixels with another instance above, below, left or right, else 0.  (N, 1, H, W) -> the same

    Wang et al. 2018 (pix2pixHD), section 3.3.
    """
    across = instances[..., 1:] != instances[..., :-1]
    down = instances[..., 1:, :] != instances[..., :-1, :]
    return (F.pad(across, (1, 0)) | F.pad(across, (0, 1))
            | F.pad(down, (0, 0, 1, 0)) | F.pad(down, (0, 0, 0, 1)))


class SourceEncoder(nn.Module):
    """What G and D see of a source image; without options, the image itself.

    Args:
        channels: those of the image.
        colors: of its label map, which becomes one channel for each; none: its channels stay as they are.
        instances: whether the last channel is an instance map, of which only the edges are seen.
    """

    def __init__(self, channels: int, colors: Sequence[Sequence[float]] = (), *,
                 instances: bool = False) -> None:
        super().__init__()
        self.instances = instances
        self.one_hot = OneHot(colors) if colors else nn.Identity()
        self.out_channels = len(colors) + instances if colors else channels

    def forward(self, a: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H, W)"""
        if not self.instances:
            return self.one_hot(a)
        return torch.cat([self.one_hot(a[:, :-1]), instance_edges(a[:, -1:]).to(a.dtype)], 1)
