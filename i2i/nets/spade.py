"""Spatially-adaptive normalization and the generator of SPADE (GauGAN)."""

from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.blocks import init_weights, max_halvings
from i2i.nets.gradient_checkpointing import checkpoint_stage
from i2i.nets.norms import make_norm_without_parameters
from i2i.nets.options import Norm, Width
from i2i.nets.weight_norm import add_spectral_norm
from i2i.registry import register

MAX_DEPTH = 6           # Of the "more" generator of the reference implementation, for 512 pixels.
MAX_WIDENING = 5        # Doublings up to which channels double inwards, up to 16 times the width.


class SPADE(nn.Module):
    """Norm with gain and bias for each pixel, from a label map.  Park et al. 2019, equations 1 to 3.

    The gain is 1 + gamma, as in the reference implementation.

    Args:
        norm: name of the norm that is modulated, built without gain and bias.
        channels: those of the features.
        label_channels: those of the label map, one for each class.
        hidden: those of the layer that gamma and beta share.
        kernel: size of the convolutions.
    """

    def __init__(self, norm: str, channels: int, label_channels: int, hidden: int = 128,
                 kernel: int = 3) -> None:
        super().__init__()
        self.norm = make_norm_without_parameters(norm, channels)
        self.shared = nn.Conv2d(label_channels, hidden, kernel, 1, kernel // 2)
        self.gamma = nn.Conv2d(hidden, channels, kernel, 1, kernel // 2)
        self.beta = nn.Conv2d(hidden, channels, kernel, 1, kernel // 2)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(N, C, H, W) features, (N, K, H', W') label map of any size -> (N, C, H, W)"""
        h = F.relu(self.shared(F.interpolate(labels, x.shape[2:])))     # Nearest neighbors.
        return self.norm(x) * (1 + self.gamma(h)) + self.beta(h)


class SPADEBlock(nn.Module):
    """Residual block with SPADE norms; the shortcut is learned where channels change.  Park et al. 2019,
    figure 4."""

    def __init__(self, in_channels: int, out_channels: int, label_channels: int, norm: str,
                 hidden: int) -> None:
        super().__init__()
        middle = min(in_channels, out_channels)
        self.norm_0 = SPADE(norm, in_channels, label_channels, hidden)
        self.conv_0 = nn.Conv2d(in_channels, middle, 3, 1, 1)
        self.norm_1 = SPADE(norm, middle, label_channels, hidden)
        self.conv_1 = nn.Conv2d(middle, out_channels, 3, 1, 1)
        self.norm_s = self.conv_s = None
        if in_channels != out_channels:
            self.norm_s = SPADE(norm, in_channels, label_channels, hidden)
            self.conv_s = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(N, C, H, W), (N, K, H', W') -> (N, C', H, W)"""
        h = self.conv_0(F.leaky_relu(self.norm_0(x, labels), 0.2))
        h = self.conv_1(F.leaky_relu(self.norm_1(h, labels), 0.2))
        return h + (self.conv_s(self.norm_s(x, labels)) if self.norm_s and self.conv_s else x)


@register("generator", "spade")
class SPADEGenerator(nn.Module):
    """SPADE (GauGAN): upsampling residual blocks, all of whose norms are modulated by the label map.  Park et
    al. 2019 (arXiv:1903.07291), section 3 and appendix A, without the image encoder.

    Meant for one-hot label maps (`source_encoding=one-hot`); other images will do.
    """

    gradient_checkpointing = False

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], *, width: Width = 64,
                 depth: Annotated[int, Doc("Doublings; 0: up to 6, from about 8 pixels on")] = 0,
                 norm: Norm = "batch",
                 hidden: Annotated[int, Doc("Channels between the label map and the gains of a norm")] = 128,
                 spectral_norm: Annotated[bool, Doc("Spectral norm of the blocks' convolutions")] = True,
                 ) -> None:
        super().__init__()
        require(width >= 1, "generator.width", width, "1 or more")
        require(hidden >= 1, "generator.hidden", hidden, "1 or more")
        by_size = min((min(size) >> 3).bit_length() - 1, max_halvings(size), MAX_DEPTH)
        depth = depth or max(1, by_size)
        require(1 <= depth <= MAX_DEPTH, "generator.depth", depth, f"0 (by size) to {MAX_DEPTH}")
        self.multiple = 2**depth
        self.smallest = 2 * self.multiple       # A map of one pixel cannot be normalized.
        require(min(size) >= self.smallest and not any(side % self.multiple for side in size), "data.size",
                f"{size[0]}x{size[1]}", f"multiples of {self.multiple} from {self.smallest} up, for "
                f"generator=spade of depth {depth}")
        levels = min(depth, MAX_WIDENING)
        channels = [width * 2**i for i in (levels - 1, levels - 1, levels - 1, *reversed(range(levels - 1)))]
        # The size doubles after these blocks; between the second and third only at the greatest depth.
        self.doubled = [0, *([1] if depth > MAX_WIDENING else []), *range(2, len(channels) - 1)]
        self.start = nn.Conv2d(in_channels, channels[0], 3, 1, 1)
        self.blocks = nn.ModuleList(SPADEBlock(a, b, in_channels, norm, hidden)
                                    for a, b in zip([channels[0], *channels], channels, strict=False))
        self.output = nn.Conv2d(width, out_channels, 3, 1, 1)
        init_weights(self, partial(nn.init.xavier_normal_, gain=0.02))
        for block in self.blocks if spectral_norm else ():
            for layer in block.children():
                if isinstance(layer, nn.Conv2d):
                    add_spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) label map -> (N, C', H, W) in [-1, 1]; H and W divisible by `multiple`"""
        h = self.start(F.interpolate(x, (x.shape[2] // self.multiple, x.shape[3] // self.multiple)))
        for i, block in enumerate(self.blocks):
            h = checkpoint_stage(self, block, h, x)
            if i in self.doubled:
                h = F.interpolate(h, scale_factor=2)
        return torch.tanh(self.output(F.leaky_relu(h, 0.2)))
