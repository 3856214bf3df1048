"""Images that a discriminator sees joined on their channels: source and output, or the images of a pack."""

from torch import Tensor

from i2i.errors import require
from i2i.metrics.feature_networks import rgb_images

MAX_CHANNELS = 4        # Of an image that is seen as a color one, a gray one, or either with alpha.
MAX_PACK = 1024


class JoinedChannels(int):
    """The channels of images that are joined on them: their number, and that of each image in `images`."""

    images: tuple[int, ...]

    def __new__(cls, *images: int, pack: int = 1) -> "JoinedChannels":
        require(pack <= MAX_PACK, "pack", pack, f"{MAX_PACK} or fewer")
        joined = super().__new__(cls, pack * sum(images))
        joined.images = pack * images
        return joined


def channels_of_images(in_channels: int) -> tuple[int, ...]:
    """The channels of each of the images that are joined; a plain number is that of a single image."""
    return in_channels.images if isinstance(in_channels, JoinedChannels) else (in_channels,)


def split_rgb(x: Tensor, channels: tuple[int, ...]) -> list[Tensor]:
    """Joined images, each as color images: its color, and each of its other channels as a gray image.

    (N, C, H, W) -> [(N, 3, H, W)]
    """
    return [image for part in x.split(list(channels), 1) for image in rgb_images(part)]
