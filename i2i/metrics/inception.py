"""The network of the Fréchet Inception distance: Inception v3 as TensorFlow published it on 2015-12-05, with
1008 classes.

Szegedy et al. 2016 (arXiv 1512.00567) in the form that Heusel et al. 2017 measure with.  It is not
torchvision's Inception: average pools leave the padding out of the mean, and the last block pools by maximum.
Names of tensors are those of pytorch-fid's port, so `pt_inception-2015-12-05-6726825d.pth` loads as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

EPS = 0.001             # Of every batch norm.
SIZE = 299              # Pixels a side that the network was made for.
FEATURES = 2048         # Of pool3, the last average.
CLASSES = 1008


class Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, ins: int, outs: int, kernel: int | tuple[int, int], *, stride: int = 1,
                 padding: int | tuple[int, int] = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, kernel, stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outs, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'H'W'"""
        return F.relu(self.bn(self.conv(x)), inplace=True)

    def of_mean(self, x: Tensor) -> Tensor:
        """Of the 3x3 means of x.  A folded 1x1 convolution is linear and the mean is cheaper on its fewer
        channels.  NCHW -> NC'HW"""
        return F.relu(_mean3(self.conv(x)), inplace=True) if isinstance(self.bn,
                                                                        nn.Identity) else self(_mean3(x))

    def fold(self) -> None:
        """Move the batch norm into the convolution, computed in float64; the output stays the same up to
        rounding."""
        fused = fuse_conv_bn_eval(self.conv.double(), cast(nn.BatchNorm2d, self.bn).double())
        self.conv, self.bn = fused.float(), nn.Identity()


def _mean3(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _chain(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class BlockA(nn.Module):
    """35x35: 1x1, 5x5, two 3x3, and a pool beside each other."""

    def __init__(self, ins: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(ins, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(ins, 48, 1), Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(ins, 64, 1), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(ins, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'HW"""
        return torch.cat([self.branch1x1(x), _chain(x, self.branch5x5_1, self.branch5x5_2),
                          _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
                          self.branch_pool.of_mean(x)], 1)


class BlockB(nn.Module):
    """35x35 -> 17x17."""

    def __init__(self, ins: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(ins, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(ins, 64, 1), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'H'W'"""
        return torch.cat([self.branch3x3(x),
                          _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
                          F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17x17: 7x7 as 1x7 and 7x1."""

    def __init__(self, mid: int) -> None:
        super().__init__()
        row: Any = {"padding": (0, 3)}
        column: Any = {"padding": (3, 0)}
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Conv(768, mid, 1), Conv(mid, mid, (1, 7),
                                                                     **row)
        self.branch7x7_3 = Conv(mid, 192, (7, 1), **column)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(768, mid, 1), Conv(mid, mid, (7, 1),
                                                                           **column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(mid, mid, (1, 7), **row), Conv(mid, mid, (7, 1),
                                                                                       **column)
        self.branch7x7dbl_5 = Conv(mid, 192, (1, 7), **row)
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'HW"""
        double = (self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3, self.branch7x7dbl_4,
                  self.branch7x7dbl_5)
        return torch.cat([self.branch1x1(x), _chain(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3),
                          _chain(x, *double),
                          self.branch_pool.of_mean(x)], 1)


class BlockD(nn.Module):
    """17x17 -> 8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(768, 192, 1), Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(768, 192, 1), Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, (7, 1), padding=(3, 0)), Conv(192, 192, 3,
                                                                                              stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'H'W'"""
        return torch.cat([_chain(x, self.branch3x3_1, self.branch3x3_2),
                          _chain(x, self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3,
                                 self.branch7x7x3_4), F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8x8: branches that fork; the pool of the very last block is a maximum."""

    def __init__(self, ins: int, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.branch1x1 = Conv(ins, 320, 1)
        self.branch3x3_1 = Conv(ins, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, (1, 3), padding=(0, 1)), Conv(384, 384, (3, 1),
                                                                                            padding=(1, 0))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(ins, 448, 1), Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, (1, 3), padding=(0, 1)), Conv(384, 384,
                                                                                                  (3, 1),
                                                                                                  padding=(1,
                                                                                                           0))
        self.branch_pool = Conv(ins, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'HW"""
        one, two = self.branch3x3_1(x), _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        pooled = self.branch_pool(F.max_pool2d(x, 3, 1, 1)) if self.last else self.branch_pool.of_mean(x)
        return torch.cat([self.branch1x1(x), self.branch3x3_2a(one), self.branch3x3_2b(one),
                          self.branch3x3dbl_3a(two), self.branch3x3dbl_3b(two), pooled], 1)


class Inception(nn.Module):
    """N3 299 299, normalized -> pool3 features N2048 and logits without the bias N1008."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, stride=2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = BlockC(128), BlockC(160), BlockC(160), BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, last=False), BlockE(2048, last=True)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """N3HW normalized -> N2048, N1008.  The Inception Score takes logits without the bias, as Salimans et
        al. 2016 did."""
        x = _chain(x, self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3)
        x = _chain(F.max_pool2d(x, 3, 2), self.Conv2d_3b_1x1, self.Conv2d_4a_3x3)
        x = _chain(F.max_pool2d(x, 3, 2), self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a,
                   self.Mixed_6b, self.Mixed_6c,
                   self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c)
        features = x.mean((2, 3))
        return features, F.linear(features, self.fc.weight)

    def folded(self) -> Inception:
        """This network itself, in eval mode with batch norms folded and channels last: same output, about
        twice as fast on a CPU."""
        self.eval().requires_grad_(False)
        for module in self.modules():
            if isinstance(module, Conv):
                module.fold()
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def expected_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors that a weights file must hold."""
    with torch.device("meta"):
        network = Inception()
    for name, tensor in network.state_dict().items():
        yield name, tuple(tensor.shape)


def from_state(state: Mapping[str, Tensor]) -> Inception:
    """The network with these weights, in eval mode.  ValueError says what does not fit, torchvision's
    Inception included."""
    for name, shape in expected_shapes():
        found = tuple(state[name].shape) if name in state else None
        if found != shape and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{name} is {found or 'missing'}, expected {shape}; torchvision's Inception "
                             "(1000 classes) is another network")
    network = Inception()
    network.load_state_dict({name: state[name] for name in network.state_dict() if name in state},
                            strict=False)
    return network.eval().requires_grad_(False)
