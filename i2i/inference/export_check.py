"""Compare an exported model with the original on real pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from i2i.data.sources import Unreadable, bundled_datasets, open_source
from i2i.data.sources.base import load_image
from i2i.data.transforms import resize
from i2i.errors import RequestError
from i2i.images.convert import palette_values, to_array, to_tensor
from i2i.images.format import MAX_VALUE, Array, DecodedImage, ImageFormat
from i2i.inference.model import Model
from i2i.seeding import noise_for

PICTURES = 3
DEFAULT_DATASET = "openmoji-64"
TRUNCATIONS = (1.0, 0.5)

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Sample:
    """Inputs of an exported model, and what the original makes of them: (N, C, H, W), in [-1, 1]."""

    inputs: Arrays
    expected: Tensor


@dataclass(frozen=True)
class Samples:
    """Samples of several sizes, and what they are, for a message."""

    samples: Sequence[Sample]
    description: str

    def difference(self, run: Callable[[Arrays], Array], pixels: ImageFormat | None) -> float:
        """The largest difference of any value, on the scale of [-1, 1], infinite for an output of another
        shape or with NaN; of integers what rounding does not explain.

        Args:
            run: the exported model.
            pixels: the format of its output; None: (N, C, H, W) in [-1, 1].
        """
        return max(_difference(run(sample.inputs), sample.expected, pixels) for sample in self.samples)


def _difference(output: Array, expected: Tensor, pixels: ImageFormat | None) -> float:
    exact, scale, rounding = expected.numpy(), 1.0, 0.0
    if pixels is not None:
        low, high = pixels.limits
        exact = ((expected.double() + 1) * ((high - low) / 2) + low).permute(0, 2, 3, 1).numpy()
        scale = (high - low) / 2
        if pixels.dtype != "float32":
            exact, rounding = exact.clip(0, MAX_VALUE[pixels.dtype]), 0.5
    if output.shape != exact.shape:
        return float("inf")
    worst = (np.abs(output.astype(np.float64) - exact) - rounding).max() / scale
    return float("inf") if np.isnan(worst) else max(0.0, float(worst))


def translator_samples(model: Model, direction: str, *, pixels: bool) -> Samples:
    """Pictures at the size of training, and two at once at another one that is no multiple of anything."""
    height, width = model.header["info"]["size"]
    source = model.formats[model.sides(direction)[0]]
    pictures, name = _pictures(model, direction)
    sizes = {(height, width): pictures[:1], (height * 3 // 4 + 1, width * 5 // 4 + 3): pictures[1:]}
    samples = []
    for size, chosen in sizes.items():
        arrays = [resize(picture, size, source.resize).reshape(*size, -1) for picture in chosen]
        batch = torch.stack([to_tensor(array, source) for array in arrays])
        inputs = np.stack(arrays) if pixels else batch.numpy()
        samples.append(Sample({"image": inputs}, model(batch, direction=direction).cpu()))
    shown = " and ".join(f"{w}x{h}" for h, w in sizes)
    return Samples(samples, f"{len(pictures)} {name} of {shown}")


def generator_samples(model: Model) -> Samples:
    """A single image, and several with other labels and truncation."""
    truncated = any(hasattr(module, "truncation") for module in model.modules.values())
    samples = []
    for indices, truncation in zip((range(1), range(1, 1 + PICTURES)), TRUNCATIONS, strict=True):
        z = model.noise(0, indices)
        labels = torch.tensor(indices) % len(model.classes) if model.classes else None
        model.set_truncation(truncation if truncated else 1.0)
        expected = model.generate_from(z, labels)
        model.set_truncation(1.0)
        inputs = {"z": z.numpy()} | ({} if labels is None else {"label": labels.numpy()})
        inputs |= {"truncation": np.array(truncation, np.float32)} if truncated else {}
        samples.append(Sample(inputs, expected))
    truncations = f", truncation {' and '.join(map(str, TRUNCATIONS))}" if truncated else ""
    return Samples(samples, f"{1 + PICTURES} images from noise{truncations}")


def _pictures(model: Model, direction: str) -> tuple[list[Array], str]:
    """Source images (H, W[, C]) in the format of their side, and what they are."""
    side = model.sides(direction)[0]
    own = Path(str(model.header.get("data", ""))).name.removesuffix(".zip")
    name = own if own in bundled_datasets() else DEFAULT_DATASET
    if model.formats[side].palette is None:
        try:
            found = _bundled_pictures(name, model.header.get("direction", "ab")["ab".index(side)])
            return [to_array(model.prepare(picture, direction), model.formats[side])
                    for picture in found], f"pictures of {name}"
        except (RequestError, Unreadable):      # They are of another kind.
            pass
    return _random_pictures(model.formats[side], model.header["info"]["size"]), "random images"


def _bundled_pictures(name: str, side: str) -> list[DecodedImage]:
    """The first test images of a side, "a" or "b" of the files, of pairs, of two sides, or of one."""
    source = open_source(name)
    names = source.names()
    own = names.under(f"test{side.upper()}/")
    pictures = [load_image(source, each) for each in (own or names.under("test/") or names)[:PICTURES]]
    height, width = pictures[0].array.shape[:2]
    if own or width != 2 * height:
        return pictures
    half = slice(None, height) if side == "a" else slice(height, None)
    return [DecodedImage(picture.array[:, half], picture.alpha) for picture in pictures]


def _random_pictures(image_format: ImageFormat, size: tuple[int, int]) -> list[Array]:
    colors = palette_values(image_format)
    pictures = []
    for index in range(PICTURES):
        noise = noise_for(0, index, image_format.channels * size[0] * size[1])
        x = noise.clamp(-1, 1).unflatten(0, (image_format.channels, *size))
        if colors:
            palette = torch.tensor(colors)
            labels = (x[0] * 1e6).long() % len(palette)
            x = torch.cat([palette[labels].permute(2, 0, 1), x[palette.shape[1]:]])
        pictures.append(to_array(x, image_format))
    return pictures
