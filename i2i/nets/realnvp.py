"""Normalizing flows: invertible networks whose change of volume is known."""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.blocks import MAX_LAYERS, max_halvings
from i2i.nets.class_conditioning import ClassEmbedding
from i2i.nets.precision import fp32_island, to_float32
from i2i.registry import register

MAX_AUTO_HALVINGS, MIN_AUTO_SIDE = 3, 4     # Of halvings=-1, and the side that it leaves.


class AffineCoupling(nn.Module):
    """What a mask keeps says how the rest is scaled and shifted.  Dinh et al. 2017, equation 9.

    Args:
        mask: 1 where a value is kept, 0 where it changes; broadcast to (channels, H, W).
        kernel: size of the first and the last convolution of the network.
    """

    mask: Tensor

    def __init__(self, channels: int, mask: Tensor, width: int, kernel: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.network = nn.Sequential(
            nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ReLU(),
            nn.Conv2d(width, width, 1), nn.ReLU(),
            nn.Conv2d(width, 2 * channels, kernel, padding=kernel // 2))
        for parameter in self.network[-1].parameters():      # Starts as the identity.
            nn.init.zeros_(parameter)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = to_float32(self.network(self.mask * x)).chunk(2, 1)
        changes = 1 - self.mask
        return changes * self.scale * torch.tanh(s), changes * t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> the same shape, and the logarithm of the determinant, (N)"""
        s, t = self._scale_and_shift(x)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """(N, C, H, W) -> what `forward` turns into it"""
        s, t = self._scale_and_shift(z)
        return (z - t) * (-s).exp()


class InvertibleConv(nn.Module):
    """1x1 convolution as a triangular product, W = P L U.  Kingma and Dhariwal 2018, section 3.2.

    It starts as the random permutation P, which stays.
    """

    order: Tensor
    inverted: Tensor | None = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(channels))
        self.lower = nn.Parameter(torch.zeros(channels, channels))
        self.upper = nn.Parameter(torch.zeros(channels, channels))
        self.log_diagonal = nn.Parameter(torch.zeros(channels))

    def _factors(self) -> tuple[Tensor, Tensor]:
        return (torch.tril(self.lower, -1) + torch.eye(len(self.order), device=self.lower.device),
                torch.triu(self.upper, 1) + torch.diag(self.log_diagonal.exp()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> the same shape, and the logarithm of the determinant, (N)"""
        with fp32_island(x):
            lower, upper = self._factors()
            y = ((lower @ upper) @ x.flatten(2)).unflatten(2, x.shape[2:])[:, self.order]
            return y, (x.shape[2] * x.shape[3] * self.log_diagonal.sum()).expand(len(x))

    def prepare_export(self) -> None:
        """Let the inverse be a constant of the graph: ONNX has no triangular solver."""
        lower, upper = (factor.double() for factor in self._factors())
        self.inverted = torch.linalg.inv(lower @ upper).float().contiguous()

    def inverse(self, z: Tensor) -> Tensor:
        """(N, C, H, W) -> what `forward` turns into it"""
        with fp32_island(z):
            lower, upper = self._factors()
            y = z[:, self.order.argsort()].flatten(2)
            if self.inverted is not None:
                return F.conv1d(y, self.inverted[:, :, None]).unflatten(2, z.shape[2:])
            y = torch.linalg.solve_triangular(lower, y, upper=False, unitriangular=True)
            return torch.linalg.solve_triangular(upper, y, upper=True).unflatten(2, z.shape[2:])


@register("invertible_network", "realnvp")
class RealNVP(nn.Module):
    """Couplings with checkerboard masks, then with channel masks on an image of half the sides and four times
    the channels, of which half is done; and so on.  Dinh et al. 2017, section 3.

    Without the paper's batch norm.  Of points (one pixel) all masks are channel masks.
    """

    def __init__(self, channels: int, size: tuple[int, int], *,
                 halvings: Annotated[int, Doc(
                     "How often the sides are halved; -1: up to three times, down to 4 pixels")] = -1,
                 couplings: Annotated[int, Doc("Coupling layers with each kind of mask, 1 to 1000")] = 4,
                 width: Annotated[int, Doc("Channels of the networks in the couplings")] = 64,
                 mixing: Annotated[Literal["none", "conv1x1"], Doc(
                     "What is before each coupling with channel masks: nothing, or the invertible 1x1 "
                     "convolution of Glow")] = "none") -> None:
        super().__init__()
        most = max_halvings(size)
        auto = min(MAX_AUTO_HALVINGS, most, max(0, int(math.log2(min(size) / MIN_AUTO_SIDE))))
        halvings = auto if halvings == -1 else halvings
        require(0 <= halvings <= most, "network.halvings", halvings,
                f"0 to {most} for images of {size[0]}x{size[1]}; -1: as many as fit, at most "
                f"{MAX_AUTO_HALVINGS}")
        require(1 <= couplings <= MAX_LAYERS, "network.couplings", couplings, f"1 to {MAX_LAYERS}")
        require(width >= 1, "network.width", width, "1 or more")
        self.halvings = halvings
        self.checkerboards, self.channelwise = nn.ModuleList(), nn.ModuleList()
        for level in range(halvings + 1):
            c, h, w = shape = channels * 2**level, size[0] >> level, size[1] >> level
            squeezed = shape if h * w == 1 else (4 * c, h // 2, w // 2)
            board = (torch.arange(h)[:, None] + torch.arange(w)) % 2
            boards = [AffineCoupling(c, ((board + i) % 2)[None].float(), width, 3) for i in range(couplings)]
            halves = torch.arange(squeezed[0])[:, None, None] < (squeezed[0] + 1) // 2
            kernel = 1 if h * w == 1 else 3
            layers: list[nn.Module] = []
            for i in range(couplings if h * w == 1 or level < halvings else 0):
                layers += [InvertibleConv(squeezed[0])] if mixing == "conv1x1" else []
                layers.append(AffineCoupling(squeezed[0], (halves ^ bool(i % 2)).float(), width, kernel))
            self.checkerboards.append(nn.ModuleList(boards if h * w > 1 else []))
            self.channelwise.append(nn.ModuleList(layers))
        self.last_shape = shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N, D), and the logarithm of the determinant, (N)"""
        log_determinant, parts = x.new_zeros(len(x)), []
        for level, (boards, layers) in enumerate(zip(self.checkerboards, self.channelwise, strict=True)):
            x, log_determinant = _run(boards, x, log_determinant)
            if level < self.halvings:
                x = F.pixel_unshuffle(x, 2)
            x, log_determinant = _run(layers, x, log_determinant)
            if level < self.halvings:
                done, x = x.chunk(2, 1)
                parts.append(done.flatten(1))
        return torch.cat([*parts, x.flatten(1)], 1), log_determinant

    def inverse(self, z: Tensor) -> Tensor:
        """(N, D) -> (N, C, H, W), what `forward` turns into it"""
        last = math.prod(self.last_shape)
        sizes = [last << level for level in reversed(range(self.halvings))]
        *parts, rest = z.split([*sizes, last], 1)
        x = rest.unflatten(1, self.last_shape)
        for level in reversed(range(self.halvings + 1)):
            if level < self.halvings:
                x = torch.cat([parts[level].unflatten(1, x.shape[1:]), x], 1)
            x = _invert(self.channelwise[level], x)
            if level < self.halvings:
                x = F.pixel_shuffle(x, 2)
            x = _invert(self.checkerboards[level], x)
        return x


def _run(layers: nn.Module, x: Tensor, log_determinant: Tensor) -> tuple[Tensor, Tensor]:
    for layer in layers.children():
        x, change = layer(x)
        log_determinant = log_determinant + change
    return x, log_determinant


def _invert(layers: nn.Module, x: Tensor) -> Tensor:
    for layer in reversed(list(layers.children())):
        x = layer.inverse(x)        # type: ignore[operator]
    return x


class ClassNormal(nn.Module):
    """A normal distribution of z for each class, N(mean, sigma^2), as a change of variables from N(0, 1)."""

    def __init__(self, num_classes: int, dimensions: int) -> None:
        super().__init__()
        self.mean = ClassEmbedding(num_classes, dimensions, 0.0)
        self.log_sigma = ClassEmbedding(num_classes, dimensions, 0.0)

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D), (N) labels -> standard normal (N, D), and the logarithm of the determinant, (N)"""
        log_sigma = self.log_sigma(c)
        return (z - self.mean(c)) * (-log_sigma).exp(), -log_sigma.sum(1)

    def inverse(self, eps: Tensor, c: Tensor) -> Tensor:
        """(N, D), (N) -> (N, D)"""
        return self.mean(c) + self.log_sigma(c).exp() * eps
