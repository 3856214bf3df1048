"""What several networks are built from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.nets import norms

# Positions up to which one matrix product replaces the CPU's convolution kernels: it wins below 64 with any
# number of channels, up to 256
# with 512 of them (bench/convolution.py).
FEW = 128


class Conv(nn.Conv2d):
    """A convolution that is computed as one matrix product where few positions meet many channels, as deep in
    a U-Net, on a CPU: the same sums up to rounding, up to ten times as fast there."""

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'hw"""
        if x.device.type != "cpu" or x.shape[0] * x.shape[2] * x.shape[3] > FEW * self.stride[0] * self.stride[1]:
            return super().forward(x)
        h, w = ((side + 2 * p - k) // s + 1 for side, p, k,
                s in zip(x.shape[2:], _two(self.padding), self.kernel_size, self.stride, strict=True))
        columns = F.unfold(x, self.kernel_size, padding=_two(self.padding), stride=self.stride)
        out = (self.weight.flatten(1) @ columns).unflatten(2, (h, w))
        return out if self.bias is None else out + self.bias[:, None, None]


class ConvTranspose(nn.ConvTranspose2d):
    """The transposed counterpart of `Conv`."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """NCHW -> NC'HW"""
        if x.device.type != "cpu" or x.shape[0] * x.shape[2] * x.shape[3] > FEW:
            return super().forward(x, output_size)
        size = tuple((side - 1) * s - 2 * p + k + o for side, s, p, k, o in zip(
            x.shape[2:], self.stride, _two(self.padding), self.kernel_size, _two(self.output_padding),
            strict=True))
        columns = self.weight.flatten(1).t() @ x.flatten(2)
        out = F.fold(columns, size, self.kernel_size, padding=_two(self.padding), stride=self.stride)
        return out if self.bias is None else out + self.bias[:, None, None]


def _two(value: str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(value, str)       # Padding by name is not used here.
    return value


class ReflectPad(nn.Module):
    """Reflection padding made of flipped slices, whose backward is deterministic on every device
    (ReflectionPad2d's is not on CUDA)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC(H + 2w)(W + 2w)"""
        w = self.width
        x = torch.cat([x[..., 1:w + 1].flip(-1), x, x[..., -w - 1:-1].flip(-1)], -1)
        return torch.cat([x[..., 1:w + 1, :].flip(-2), x, x[..., -w - 1:-1, :].flip(-2)], -2)


def upsample(up: str, in_channels: int, out_channels: int, *, kernel: int, bias: bool) -> nn.Module:
    """Twice the size: `transposed` convolution (4 or 3 wide, as the papers) or nearest-neighbor `resize` and
    a 3-wide convolution, which has no checkerboard (Odena et al. 2016).  NCHW -> NC'(2H)(2W)"""
    if up == "transposed":
        return ConvTranspose(in_channels, out_channels, kernel, 2, 1, output_padding=kernel % 2, bias=bias)
    return nn.Sequential(nn.Upsample(scale_factor=2),
                         nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias))


@torch.no_grad()
def init_weights(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Weights from N(0, std), norm gains from N(1, std), biases 0.  Isola et al. 2017, section 6.2; Radford
    et al. 2016."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module,
                        norms.BatchNorm | nn.SyncBatchNorm | norms.VirtualBatchNorm) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
    return network
