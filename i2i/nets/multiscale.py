"""Multiscale discriminator of pix2pixHD: PatchGANs on an image pyramid."""

from typing import Annotated, cast

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.options import Norm, Width
from i2i.nets.patchgan import Layers, PatchDiscriminator, default_layers
from i2i.registry import register

MAX_SCALES = 8


def halve(x: Tensor) -> Tensor:
    """Averages of 3x3 pixels, at the border of those inside.  (N, C, H, W) -> (N, C, H/2, W/2), rounded up"""
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


@register("discriminator", "multiscale")
class MultiscaleDiscriminator(nn.Module):
    """PatchGANs of the same form on the image and its halved copies.  Wang et al. 2018 (pix2pixHD,
    arXiv:1711.11585), section 3.2; Park et al. 2019 (SPADE).

    Its logits and features are lists with one item for each scale, full resolution first.  Losses are means
    over scales as in SPADE; pix2pixHD adds them, which is `feature_matching.gan=SCALES` here.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *,
                 scales: Annotated[int, Doc("Scales, each of half the size of the one before")] = 2,
                 width: Width = 64, layers: Layers = 0, norm: Norm = "instance") -> None:
        super().__init__()
        require(1 <= scales <= MAX_SCALES, "discriminator.scales", scales, f"1 to {MAX_SCALES}")
        sizes = [(-(-size[0] >> i), -(-size[1] >> i)) for i in range(scales)]       # Rounded up.
        layers = layers or default_layers(sizes[-1])
        require(min(sizes[-1]) >= 3 * 2**min(layers, 30), "discriminator.scales", scales,
                f"fewer, or fewer discriminator.layers than {layers}: the last scale has {sizes[-1][0]}x"
                f"{sizes[-1][1]} pixels and needs {3 * 2**min(layers, 30)} (3 * 2^layers)")
        self.num_classes = num_classes
        self.scales = nn.ModuleList(PatchDiscriminator(in_channels, each, num_classes, 2, width=width,
                                                       layers=layers, norm=norm) for each in sizes)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The image at each scale, full resolution first."""
        images = [x]
        while len(images) < len(self.scales):
            images.append(halve(images[-1]))
        return images

    def features(self, x: Tensor, c: Tensor | None = None) -> list[list[Tensor]]:
        """Activations of all layers but the last, by scale"""
        return [cast(PatchDiscriminator, D).features(image, c)
                for D, image in zip(self.scales, self.pyramid(x), strict=True)]

    def forward(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """(N, C, H, W), (N) labels -> [(N, 1, H', W') logits] by scale"""
        return [D(image, c) for D, image in zip(self.scales, self.pyramid(x), strict=True)]
