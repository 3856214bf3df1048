"""Model files of ours out of other projects' checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from i2i import recipes  # noqa: F401 - registers networks and recipes.
from i2i.config import to_dict
from i2i.convert import cyclegan_pix2pix, stylegan2
from i2i.convert.checkpoint_files import Tensors, read
from i2i.errors import RequestError
from i2i.images.formats import ImageFormat
from i2i.inference.model_file import model_header
from i2i.recipes.base import DataInfo
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.runs import checkpoint


def import_generator(path: Path, out: Path) -> dict[str, Any]:
    """Write the model file of a foreign generator.  -> its header"""
    source = read(path)
    if stylegan2.recognized(source):
        return _from_noise(path, source, out)
    spec, tensors, info = _open(path, source)
    header = _header("pix2pix", Pix2Pix(generator=spec), info, path.name, direction="ab")
    checkpoint.save(out, {f"G.{key}": value for key, value in tensors.items()}, {"kind": "model", **header})
    return header


def import_cyclegan(ab: Path, ba: Path, out: Path) -> dict[str, Any]:
    """Write one model file of the two generators of a foreign CycleGAN, which must be alike.  -> its
    header"""
    spec, forward, info = _open(ab, read(ab))
    other, backward, back = _open(ba, read(ba))
    if other != spec or (back.a_channels, back.b_channels) != (info.b_channels, info.a_channels):
        raise RequestError(f"{ab} is {spec}, {info.a_channels} -> {info.b_channels} channels, but {ba} is "
                           f"{other}, {back.a_channels} -> "
                           f"{back.b_channels}; accepted: two generators of one CycleGAN")
    identity = 0.0 if info.a_channels != info.b_channels else CycleGAN.lambda_identity
    header = _header("cyclegan", CycleGAN(generator=spec, lambda_identity=identity), info,
                     f"{ab.name}, {ba.name}", direction="ab")
    tensors = {f"G_{way}.{key}": value for way, each in (("ab", forward), ("ba", backward)) for key,
               value in each.items()}
    checkpoint.save(out, tensors, {"kind": "model", **header})
    return header


def _from_noise(path: Path, source: Tensors, out: Path) -> dict[str, Any]:
    spec, tensors, colors, side, classes = stylegan2.convert(source)
    if colors not in (1, 3):
        raise RequestError(f"{path} makes images of {colors} channels; accepted: 1 (gray) or 3 (color)")
    recipe = GAN(generator=spec, discriminator=Spec("stylegan2"), conditional=bool(classes))
    header = _header("gan", recipe, DataInfo((side, side), colors, colors, classes), path.name,
                     classes=[str(i) for i in range(classes)])
    checkpoint.save(out, {f"G.{key}": value for key, value in tensors.items()}, {"kind": "model", **header})
    return header


def _open(path: Path, source: Tensors) -> tuple[Spec, Tensors, DataInfo]:
    spec, tensors, ins, outs, size = cyclegan_pix2pix.convert(source)
    for channels in (ins, outs):
        if channels not in (1, 3):
            raise RequestError(f"{path} translates {ins} channels to {outs}; accepted: 1 (gray) or 3 (color)")
    return spec, tensors, DataInfo(size, ins, outs)


def _header(name: str, recipe: Pix2Pix | CycleGAN | GAN, info: DataInfo, imported: str,
            **more: Any) -> dict[str, Any]:
    return model_header(name, to_dict(recipe), info,
                        (ImageFormat(info.a_channels), ImageFormat(info.b_channels)), imported=imported,
                        images=0, step=0, **more)
