"""Mode seeking: unlike z make unlike images."""

from typing import Annotated, ClassVar

from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.losses.path_length import NoiseGenerator
from i2i.nets.precision import to_float32
from i2i.registry import register

EPSILON = 1e-5      # That of the authors' code.


@register("generator_penalty", "mode-seeking")
class ModeSeeking(nn.Module):
    """Mode seeking: weight / (|G(z1, c) - G(z2, c)|_1 / |z1 - z2|_1 + 1e-5).  Mao et al. 2019.

    arXiv:1903.05628, equation 3; means over the batch.  Two images of one class must differ as their z do,
    so that G cannot make one image of each class.
    """

    differentiates_styles: ClassVar[bool] = False

    def __init__(self, *, weight: Annotated[float, Doc("Weight of the penalty in G's loss")] = 1.0,
                 every: Annotated[int, Doc(
                     "Interval of the penalty in steps of G, by which it is multiplied")] = 1,
                 shrink: Annotated[int, Doc("Divisor of the batch size for the penalty")] = 2) -> None:
        super().__init__()
        require(weight >= 0, "g_penalty.weight", weight, "0 or more")
        require(every >= 1, "g_penalty.every", every, "1 or more")
        require(shrink >= 1, "g_penalty.shrink", shrink, "1 or more")
        self.weight, self.every, self.shrink = weight, every, shrink

    def forward(self, G: NoiseGenerator, z: Tensor, c: Tensor | None) -> Tensor:
        """The penalty of z, (N, z_dim), paired with their neighbors, in float32."""
        other = z.roll(1, 0)
        images = to_float32(G(z, c)) - to_float32(G(other, c))
        ratio = images.abs().mean() / (z - other).abs().mean().clamp_min(EPSILON)
        return self.weight / (ratio + EPSILON)
