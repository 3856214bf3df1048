"""Convert checkpoints of other projects to model files; the architecture is read from the tensors."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from i2i import recipes  # noqa: F401 - registers networks and recipes.
from i2i.config import to_dict
from i2i.convert import cyclegan_pix2pix, stylegan2
from i2i.convert.checkpoint_files import Generator, Tensors, read_tensors
from i2i.errors import RequestError
from i2i.images.format import ImageFormat
from i2i.inference.model_file import model_header
from i2i.recipes.base import DataInfo, Recipe, data_defaults
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.runs import checkpoint

R = TypeVar("R", CUT, CycleGAN)


def convert_generator(path: Path, out: Path) -> dict[str, Any]:
    """Convert a generator of pytorch-CycleGAN-and-pix2pix, contrastive-unpaired-translation (CUT) or
    stylegan2-ada-pytorch; the new file's header."""
    spec, tensors, info = _read_generator(path)
    tensors = {f"G.{key}": value for key, value in tensors.items()}
    if {"blurpool", "bilinear"} & set(spec.options.values()):
        return _save(out, tensors, "cut", _fitted(CUT(generator=spec), info), info, path.name, direction="ab")
    if spec.name != "stylegan2":
        return _save(out, tensors, "pix2pix", Pix2Pix(generator=spec), info, path.name, direction="ab")
    recipe = GAN(generator=spec, discriminator=Spec("stylegan2"), conditional=bool(info.num_classes))
    classes = [str(i) for i in range(info.num_classes)]
    return _save(out, tensors, "gan", recipe, info, path.name, classes=classes)


def convert_cyclegan(ab: Path, ba: Path, out: Path) -> dict[str, Any]:
    """Convert the two generators of a CycleGAN to one model file; its header."""
    (spec, forward, info), (spec_ba, backward, info_ba) = _read_generator(ab), _read_generator(ba)
    if spec_ba != spec or (info_ba.a_channels, info_ba.b_channels) != (info.b_channels, info.a_channels):
        raise RequestError(f"{ab} is {spec}, {info.a_channels} -> {info.b_channels} channels, but {ba} is "
                           f"{spec_ba}, {info_ba.a_channels} -> {info_ba.b_channels}; accepted: two "
                           "generators of one CycleGAN")
    tensors = {f"G_{direction}.{key}": value for direction, part in (("ab", forward), ("ba", backward))
               for key, value in part.items()}
    return _save(out, tensors, "cyclegan", _fitted(CycleGAN(generator=spec), info), info,
                 f"{ab.name}, {ba.name}", direction="ab")


def _fitted(recipe: R, info: DataInfo) -> R:
    """The recipe with the defaults that it has with these data."""
    values: dict[str, Any] = {key: value for key, (value, _) in data_defaults(recipe, info).items()}
    return replace(recipe, **values)


def _read_generator(path: Path) -> Generator:
    tensors = read_tensors(path)
    try:
        generator = (stylegan2 if stylegan2.CONSTANT in tensors else cyclegan_pix2pix).convert(tensors)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None
    for channels in (generator.info.a_channels, generator.info.b_channels):
        if channels not in (1, 3):
            raise RequestError(f"{path} is for images of {channels} channels; accepted: 1 (gray) or "
                               "3 (color)")
    return generator


def _save(out: Path, tensors: Tensors, recipe_name: str, recipe: Recipe, info: DataInfo, converted_from: str,
          **more: Any) -> dict[str, Any]:
    formats = ImageFormat(info.a_channels), ImageFormat(info.b_channels)
    header = model_header(recipe_name, to_dict(recipe), info, formats, converted_from=converted_from,
                          images=0, step=0, **more)
    checkpoint.save(out, tensors, {"kind": "model", **header})
    return header
