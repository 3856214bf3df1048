"""Denoisers: networks from a noisy image and its time to a prediction of the same shape.

Further input channels, such as a source image, stand after the noisy ones.
"""

import math
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.blocks import MAX_LAYERS, GemmConv2d, channels_per_level, init_weights, max_halvings
from i2i.nets.class_conditioning import ClassEmbedding
from i2i.nets.gradient_checkpointing import checkpoint_stage
from i2i.nets.options import Width
from i2i.nets.precision import to_float32
from i2i.registry import register

GROUPS = 8                  # Of group norm, or as many as divide the channels.
HEAD_CHANNELS = 32          # Of attention.
MAX_MULTIPLE = 4            # 128 channels for a width of 32.
LOWEST_SIDE = 8             # The size is halved to this shorter side or fewer pixels, if it can be,
MAX_LOWEST_SIDE = 16        # and at least to this one, whose attention map has 256 x 256 numbers.
FREQUENCIES = (1.0, 2.0, 4.0, 8.0)     # Of the waves of its inputs that an MLP sees.  Tancik et al. 2020.
TIME_SCALE = 1000.0         # Of Ho et al. 2020, whose times are 0 to 999.


class TimeEmbedding(nn.Module):
    """Sinusoids of the time through two layers (Ho et al. 2020, appendix B), and a vector for the label.

    The label after the last is "none", which classifier-free guidance needs (Ho and Salimans 2022).
    """

    def __init__(self, width: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.frequencies, self.num_classes = max(1, width // 2), num_classes
        self.layers = nn.Sequential(nn.Linear(2 * self.frequencies, channels), nn.SiLU(),
                                    nn.Linear(channels, channels))
        self.labels = ClassEmbedding(num_classes + 1, channels) if num_classes else None

    def forward(self, t: Tensor, c: Tensor | None) -> Tensor:
        """(N) times in [0, 1], (N) labels or None -> (N, channels)"""
        t = to_float32(t)
        i = torch.arange(self.frequencies, device=t.device, dtype=t.dtype)
        angles = TIME_SCALE * t[:, None] * torch.exp(-math.log(10_000) * i / self.frequencies)
        h = self.layers(torch.cat([angles.sin(), angles.cos()], 1))
        if self.labels is None:
            return h
        return h + self.labels(torch.full_like(t, self.num_classes, dtype=torch.int64) if c is None else c)


def group_norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """Group normalization, which sees each image alone.  Wu and He 2018."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels, affine=affine)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3, norm with gain and bias by the time, SiLU, 3x3.  Dhariwal and Nichol 2021, section 3.

    It starts as the identity, or as the 1x1 convolution that changes the channels.
    """

    def __init__(self, in_channels: int, out_channels: int, time_channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(in_channels), GemmConv2d(in_channels, out_channels, 3, 1, 1)
        self.time = nn.Linear(time_channels, 2 * out_channels)
        self.norm2 = group_norm(out_channels, affine=False)
        self.last = GemmConv2d(out_channels, out_channels, 3, 1, 1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, C, H, W), (N, time_channels) after SiLU -> (N, C', H, W)"""
        gain, bias = self.time(time)[:, :, None, None].chunk(2, 1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x)))) * (1 + gain) + bias
        return self.shortcut(x) + self.last(F.silu(h))


class Attention(nn.Module):
    """Self-attention over positions, in heads of 32 channels; it starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD_CHANNELS)
        self.norm, self.qkv = group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)"""
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        q, k, v = (each.transpose(2, 3) for each in qkv.unbind(1))          # (N, heads, HW, C / heads)
        if torch.is_grad_enabled():     # torch's own has a backward on CUDA that is not deterministic.
            h = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, -1) @ v
        else:                           # It needs no map of all pairs.
            h = F.scaled_dot_product_attention(q, k, v)
        return x + self.last(h.transpose(2, 3).reshape(x.shape))


@register("denoiser", "unet")
class UNetDenoiser(nn.Module):
    """U-Net with residual blocks and attention at the lowest resolution.  Ho et al. 2020 (arXiv:2006.11239).

    Smaller than the paper's; groups of pixels enter as channels (Hoogeboom et al. 2023, section 3.3), which
    quarters the cost.
    """

    gradient_checkpointing = False

    def __init__(
            self, in_channels: int, out_channels: int, size: tuple[int, int], num_classes: int = 0, *,
            width: Width = 32,
            blocks: Annotated[int, Doc("Residual blocks per resolution, on either side")] = 1,
            patch: Annotated[int, Doc("Side of the squares of pixels that enter as channels; 1: none")] = 2,
            depth: Annotated[int, Doc(
                "Number of halvings; -1: until the shorter side is 8 pixels or fewer")] = -1) -> None:
        super().__init__()
        require(1 <= blocks <= MAX_LAYERS, "denoiser.blocks", blocks, f"1 to {MAX_LAYERS}")
        require(patch >= 1, "denoiser.patch", patch, "1 or more")
        self.size, self.out_channels, self.num_classes = size, out_channels, num_classes
        self.patch, depth = patch, _depth(size, patch, depth)
        self.multiple = patch * 2**depth
        channels = channels_per_level("denoiser", width, depth + 1, max_multiple=MAX_MULTIPLE)
        time, lowest = 4 * width, channels[-1]
        self.time = TimeEmbedding(width, time, num_classes)
        self.first = nn.Conv2d(in_channels * patch**2, width, 3, 1, 1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (before, now) in enumerate(pairwise([width, *channels])):
            if level:
                self.down.append(GemmConv2d(before, before, 3, 2, 1))
            self.down.extend(ResidualBlock(now if i else before, now, time) for i in range(blocks))
        self.middle = nn.ModuleList([ResidualBlock(lowest, lowest, time), Attention(lowest),
                                     ResidualBlock(lowest, lowest, time)])
        for level, now in reversed([*enumerate(channels)]):
            below = channels[min(level + 1, depth)]
            self.up.extend(ResidualBlock(now + (now if i else below), now, time) for i in range(blocks))
            if level:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), GemmConv2d(now, now, 3, 1, 1)))
        self.last = nn.Sequential(group_norm(width), nn.SiLU(),
                                  nn.Conv2d(width, out_channels * patch**2, 3, 1, 1))
        init_weights(self, nn.init.xavier_uniform_)
        for module in self.modules():
            if isinstance(module, ResidualBlock | Attention):
                nn.init.zeros_(module.last.weight)
        nn.init.zeros_(self.last[2].weight)         # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) times in [0, 1], (N) labels -> (N, C', H, W); H and W divisible by `multiple`"""
        time, skips = F.silu(self.time(t, c)), list[Tensor]()
        x = self.first(F.pixel_unshuffle(x, self.patch))
        for layer in self.down:
            if isinstance(layer, ResidualBlock):
                x = checkpoint_stage(self, layer, x, time)
                skips.append(x)
            else:
                x = layer(x)
        for layer in self.middle:
            x = checkpoint_stage(self, layer, x, *([time] if isinstance(layer, ResidualBlock) else []))
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                x = checkpoint_stage(self, layer, torch.cat([x, skips.pop()], 1), time)
            else:
                x = layer(x)
        return F.pixel_shuffle(self.last(x), self.patch)


def _depth(size: tuple[int, int], patch: int, depth: int) -> int:
    """The number of halvings.  RequestError for a size that cannot be halved so often, or often enough."""
    shown, shorter = f"{size[0]}x{size[1]}", min(size) // patch
    if depth >= 0:
        require(depth < 32 and all(side % (patch << depth) == 0 for side in size), "denoiser.depth", depth,
                f"as often as {shown} pixels in squares of {patch} can be halved; or another data.size")
        return depth
    needed, wanted = ((max(shorter - 1, 0) // side).bit_length() for side in (MAX_LOWEST_SIDE, LOWEST_SIDE))
    multiple = patch << needed
    require(all(side % multiple == 0 for side in size), "data.size", shown,
            f"sides divisible by {multiple} with denoiser=unet denoiser.patch={patch}, which halves the "
            f"shorter one to {MAX_LOWEST_SIDE} squares or fewer; or another patch")
    return min(wanted, max_halvings((size[0] // patch, size[1] // patch)))


@register("denoiser", "mlp")
class MLPDenoiser(nn.Module):
    """Residual layers with gain and bias by the time, for points (images of one pixel) and small images."""

    def __init__(
            self, in_channels: int, out_channels: int, size: tuple[int, int], num_classes: int = 0, *,
            width: Annotated[int, Doc("Units of each hidden layer")] = 128,
            layers: Annotated[int, Doc("Number of hidden layers, 1 to 1000")] = 3) -> None:
        super().__init__()
        require(width >= 1, "denoiser.width", width, "1 or more")
        require(1 <= layers <= MAX_LAYERS, "denoiser.layers", layers, f"1 to {MAX_LAYERS}")
        self.size, self.out_channels, self.num_classes = size, out_channels, num_classes
        self.time = TimeEmbedding(width, width, num_classes)
        self.first = nn.Linear((1 + 2 * len(FREQUENCIES)) * in_channels * math.prod(size), width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.gains = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(layers))
        self.last = nn.Linear(width, out_channels * math.prod(size))
        init_weights(self, nn.init.xavier_uniform_)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) times in [0, 1], (N) labels -> (N, C', H, W)"""
        x = x.flatten(1)
        angles = torch.cat([frequency * x for frequency in FREQUENCIES], 1)
        time, h = F.silu(self.time(t, c)), self.first(torch.cat([x, angles.sin(), angles.cos()], 1))
        for layer, gains in zip(self.layers, self.gains, strict=True):
            gain, bias = gains(time).chunk(2, 1)
            h = h + F.silu(layer(h) * (1 + gain) + bias)
        return self.last(h).unflatten(1, (self.out_channels, *self.size))
