"""Ten lines of Python that use an exported model without i2i."""

from pathlib import Path

from i2i.images.format import MAX_VALUE, ImageFormat
from i2i.images.pil import pil_supports
from i2i.inference.export_graph import Exportable, ExportableGenerator
from i2i.inference.model import Model

MODES = {(1, False): "L", (2, True): "LA", (3, False): "RGB", (4, True): "RGBA"}     # Of Pillow, for 8 bits.


def example(model: Model, module: Exportable, direction: str, path: Path, *, pixels: bool) -> str:
    """The program: it reads `input.png` (or .npy), or makes noise, and writes `output.png` (or .npy)."""
    generates = isinstance(module, ExportableGenerator)
    source, target = ("b", "b") if generates else model.sides(direction)
    inputs = _noise(model, module) if generates else _image(model.formats[source], pixels)
    call = ", ".join(f'"{name}": {name}' for name in module.axes)
    onnx = path.suffix == ".onnx"
    run = ([f'session = onnxruntime.InferenceSession("{path}")', f"output, = session.run(None, {{{call}}})"]
           if onnx else [f'model = torch.export.load("{path}").module()',
                         f"inputs = {{{call}}}",
                         "tensors = {name: torch.from_numpy(x) for name, x in inputs.items()}",
                         "output = model(**tensors).numpy()"])
    outputs = _saved(model.formats[target], pixels)
    body = [*inputs, *run, *outputs]
    libraries = ["import numpy as np", "import onnxruntime" if onnx else "import torch"]
    if any("Image." in line for line in body):
        libraries.append("from PIL import Image")
    return "\n".join([*libraries, "", *body]) + "\n"


def _noise(model: Model, module: Exportable) -> list[str]:
    size = model.noise(0, [0]).shape[1]
    lines = [f"z = np.random.default_rng(0).standard_normal((4, {size}), np.float32)"]
    if "label" in module.axes:
        lines.append(f"label = np.arange(4) % {len(model.classes)}        # "
                     + ", ".join(model.classes[:4]) + (" …" if len(model.classes) > 4 else ""))
    if "truncation" in module.axes:
        lines.append("truncation = np.array(1, np.float32)        # Less: images nearer to the mean.")
    return lines


def _image(image_format: ImageFormat, pixels: bool) -> list[str]:
    """Read an image, and make the input of it."""
    mode, (low, high) = _mode(image_format), image_format.limits
    lines = [f'image = np.asarray(Image.open("input.png").convert("{mode}"))' if mode
             else 'image = np.load("input.npy")']
    if image_format.clahe:
        tiles = f"{image_format.clahe_tiles}x{image_format.clahe_tiles}"
        lines.append(f"# Here goes CLAHE (clip limit {image_format.clahe:g}, {tiles} tiles), as in training.")
    if image_format.channels == 1:
        lines.append("image = image[..., None]")
    if pixels:
        return [*lines, f"image = image[None]        # (N, H, W, C) of {image_format.dtype}"]
    shifted = f"(image.astype(np.float32) - {low:g})" if low else "image.astype(np.float32)"
    return [*lines, f"image = {shifted} * {2 / (high - low):.9g} - 1",
            "image = image.transpose(2, 0, 1)[None]        # (N, C, H, W) in [-1, 1]"]


def _saved(image_format: ImageFormat, pixels: bool) -> list[str]:
    """Turn the first output into an image, and write it."""
    mode, (low, high) = _mode(image_format), image_format.limits
    lines = ["pixels = output[0]"]
    if not pixels:
        lines = [f"pixels = (output[0].transpose(1, 2, 0) + 1) * {(high - low) / 2:.9g}"
                 + (f" + {low:g}" if low else "")]
        if image_format.dtype != "float32":
            lines.append(f"pixels = pixels.round().clip(0, {MAX_VALUE[image_format.dtype]})"
                         f".astype(np.{image_format.dtype})")
    if image_format.channels == 1:
        lines.append("pixels = pixels[..., 0]")
    return [*lines, 'Image.fromarray(pixels).save("output.png")' if mode else 'np.save("output.npy", pixels)']


def _mode(image_format: ImageFormat) -> str:
    """The mode of Pillow that holds images of a format; empty if none does in files of 8 bits."""
    if image_format.dtype != "uint8" or not pil_supports(image_format):
        return ""
    return MODES.get((image_format.channels, image_format.alpha), "")
