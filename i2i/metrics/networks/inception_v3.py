"""The network of the Fréchet inception distance: Inception v3 as TensorFlow published it on 2015-12-05.

Szegedy et al. 2016 (arXiv 1512.00567) in the form Heusel et al. 2017 use: torchvision's blocks, but with 1008
classes, average pools that leave the padding out of the mean, and a maximum for the pool of the last block.
Tensors have the names of pytorch-fid's port, so `pt_inception-2015-12-05-6726825d.pth` loads as it is.
"""

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import inception as blocks

NUM_FEATURES, NUM_CLASSES = 2048, 1008


class ConvBlock(blocks.BasicConv2d):
    """Convolution without bias, batch norm and ReLU."""

    conv: nn.Conv2d
    bn: nn.Module

    def after_average_pool(self, x: Tensor) -> Tensor:
        """self(average_pool(x)), pooled after the 1x1 convolution if folded: equal, on fewer channels."""
        if isinstance(self.bn, nn.Identity):
            return F.relu(F.avg_pool2d(self.conv(x), 3, 1, 1, count_include_pad=False), inplace=True)
        return self(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))

    def fold(self) -> None:
        """Merge the batch norm into the convolution, in float64; the output stays the same up to rounding."""
        fused = fuse_conv_bn_eval(self.conv.double(), cast(nn.BatchNorm2d, self.bn.double()))
        self.conv, self.bn = fused.float(), nn.Identity()


class BlockA(blocks.InceptionA):
    """Inception block of the 35x35 maps."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)),
                          self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
                          self.branch_pool.after_average_pool(x)], 1)


class BlockC(blocks.InceptionC):
    """Inception block of the 17x17 maps."""

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return torch.cat([self.branch1x1(x), self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
                          self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
                          self.branch_pool.after_average_pool(x)], 1)


class BlockE(blocks.InceptionE):
    """Inception block of the 8x8 maps."""

    def pool(self, x: Tensor) -> Tensor:
        """The branch with the pool."""
        return self.branch_pool.after_average_pool(x)

    def forward(self, x: Tensor) -> Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat([self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single),
                          self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.pool(x)], 1)


class LastBlockE(BlockE):
    """The last block pools by maximum."""

    def pool(self, x: Tensor) -> Tensor:
        return self.branch_pool(F.max_pool2d(x, 3, 1, 1))


class FIDInception(blocks.Inception3):
    """(N, 3, 299, 299), normalized to about [-1, 1] -> pool3 features (N, 2048) and logits (N, 1008)."""

    def __init__(self) -> None:
        kinds = (BlockA, blocks.InceptionB, BlockC, blocks.InceptionD, BlockE, blocks.InceptionAux)
        super().__init__(NUM_CLASSES, aux_logits=False, init_weights=False, inception_blocks=[
            ConvBlock, *(partial(kind, conv_block=ConvBlock) for kind in kinds)])
        self.Mixed_7c = LastBlockE(NUM_FEATURES, conv_block=ConvBlock)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *layers, fc = self.children()       # In the order in which they are applied.
        for layer in layers:
            x = layer(x)
        features = x.flatten(1)
        return features, F.linear(features, fc.weight)      # No bias: Salimans et al. 2016.

    def folded(self) -> "FIDInception":
        """This network in eval mode, batch norms folded, channels last: about twice as fast on a CPU."""
        self.eval().requires_grad_(False)
        for module in self.modules():
            if isinstance(module, ConvBlock):
                module.fold()
        return self.to(memory_format=torch.channels_last)


def from_state(state: Mapping[str, Tensor]) -> FIDInception:
    """The network with these weights, in eval mode.  ValueError if they do not fit."""
    network = FIDInception()
    for name, tensor in network.state_dict().items():
        found = tuple(state[name].shape) if name in state else None
        if found != tuple(tensor.shape) and not name.endswith("num_batches_tracked"):
            raise ValueError(f"{name} is {found or 'missing'}, expected {tuple(tensor.shape)}; torchvision's "
                             "Inception (1000 classes) is another network")
    network.load_state_dict(dict(state), strict=False)
    return network.eval().requires_grad_(False)
