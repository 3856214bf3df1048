"""Convert generators of other projects to model files, and ours to theirs.

The architecture is read from the tensors; settings supply what they do not show, such as the meaning of the
source's channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from i2i import recipes  # noqa: F401 - registers networks and recipes.
from i2i.config import override, parse_assignments, to_dict
from i2i.convert import cyclegan_pix2pix, fastgan, pix2pixhd, spade, stylegan2
from i2i.convert.checkpoint_files import read_tensors
from i2i.convert.fitting import Found, Tensors, fit
from i2i.errors import RequestError
from i2i.images.convert import palette_values
from i2i.images.format import ImageFormat
from i2i.inference.model_file import model_header, networks_from_header
from i2i.recipes.base import DataInfo, Recipe, data_defaults
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.runs import checkpoint

R = TypeVar("R", bound=CUT | CycleGAN | GAN | Pix2Pix)
FORMATS = (stylegan2.FORMAT, spade.FORMAT, fastgan.FORMAT, pix2pixhd.FORMAT, cyclegan_pix2pix.FORMAT)
MAX_CLASSES = 256       # Of label maps: as many as an 8-bit gray value has.


def convert_generator(path: Path, out: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Convert a generator of another project to a model file; its header.

    Args:
        path: a state dict or network pickle of one of FORMATS.
        out: the model file.
        settings: KEY=VALUE settings of the recipe, such as `source_encoding=one-hot`.
    """
    found = _read_generator(path)
    recipe = _configured(found.recipe, found.info, settings)
    info, source = _source_side(path, recipe, found.info)
    tensors = _fit(path, "G", found._replace(recipe=recipe))
    if isinstance(recipe, Pix2Pix):
        tensors |= {f"E.{key}": value for key, value in recipe.source_encoder(info).state_dict().items()}
    if isinstance(recipe, GAN):
        more: dict[str, Any] = {"classes": [str(i) for i in range(info.num_classes)]}
        return _save(out, tensors, "gan", recipe, info, source, path.name, **more)
    name = "cut" if isinstance(recipe, CUT) else "pix2pix"
    return _save(out, tensors, name, recipe, info, source, path.name, direction="ab")


def convert_cyclegan(ab: Path, ba: Path, out: Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Convert the two generators of a CycleGAN to one model file; its header."""
    found, found_ba = _read_generator(ab), _read_generator(ba)
    (spec, info), (spec_ba, info_ba) = ((each.recipe.generator, each.info) for each in (found, found_ba))
    if spec_ba != spec or (info_ba.a_channels, info_ba.b_channels) != (info.b_channels, info.a_channels):
        raise RequestError(f"{ab} is {spec}, {info.a_channels} -> {info.b_channels} channels, but {ba} is "
                           f"{spec_ba}, {info_ba.a_channels} -> {info_ba.b_channels}; accepted: two "
                           "generators of one CycleGAN")
    recipe = _configured(CycleGAN(generator=spec), info, settings)
    _, source = _source_side(ab, recipe, info)
    one = Pix2Pix(generator=recipe.generator, g_weight_norm=recipe.g_weight_norm)
    tensors = _fit(ab, "G_ab", found._replace(recipe=one)) | _fit(ba, "G_ba", found_ba._replace(recipe=one))
    return _save(out, tensors, "cyclegan", recipe, info, source, f"{ab.name}, {ba.name}", direction="ab")


def _read_generator(path: Path) -> Found:
    tensors = read_tensors(path)
    for format in FORMATS:
        if format.recognizes(tensors):
            try:
                return format.read(tensors)
            except RequestError as error:
                raise RequestError(f"{path}: {error}") from None
    *projects, last = (format.project for format in FORMATS)
    raise RequestError(f"{path}: no generator is recognized in these {len(tensors)} tensors (the first: "
                       f"{next(iter(tensors))[:100]}); accepted: generators of {', '.join(projects)}, {last}")


def _configured(recipe: R, info: DataInfo, settings: Sequence[str]) -> R:
    """The recipe with the defaults that it has with these data, and with settings."""
    defaults: dict[str, Any] = {key: value for key, (value, _) in data_defaults(recipe, info).items()}
    return override(replace(recipe, **defaults), parse_assignments(settings))


def _fit(path: Path, name: str, found: Found) -> Tensors:
    """The tensors of a network by their names in a model file, where it is called `name`."""
    try:
        return {f"{name}.{key}": value for key, value in fit(found).items()}
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None


def _source_side(path: Path, recipe: Recipe, info: DataInfo) -> tuple[DataInfo, ImageFormat]:
    """The channels of the source images in place of those of the network, and the format of these images.

    Label maps have one channel, the number of the class, and a second one with `instance_channel`.
    """
    channels = info.a_channels
    if info.b_channels not in (1, 3):
        raise RequestError(f"{path} makes images of {info.b_channels} channels; accepted: 1 (gray) or 3 "
                           "(color)")
    if not isinstance(recipe, Pix2Pix) or recipe.source_encoding == "channels":
        if channels not in (1, 3):
            raise RequestError(f"{path} is for images of {channels} channels; accepted: 1 (gray) or 3 "
                               f"(color), and label maps: add source_encoding=one-hot if it takes {channels} "
                               f"classes, and instance_channel=true if {channels - 1} and edges of instances")
        return info, ImageFormat(channels)
    classes = channels - recipe.instance_channel
    if not 1 < classes <= MAX_CLASSES:
        raise RequestError(f"{path} is for images of {channels} channels, which cannot be {classes} classes; "
                           f"accepted: 2 to {MAX_CLASSES} with source_encoding=one-hot")
    source = ImageFormat(1 + recipe.instance_channel, resize="nearest",
                         palette=tuple((i,) for i in range(classes)))
    return replace(info, a_channels=source.channels, a_colors=palette_values(source)), source


def _save(out: Path, tensors: Mapping[str, Tensor], recipe_name: str, recipe: Recipe, info: DataInfo,
          source: ImageFormat, converted_from: str, **more: Any) -> dict[str, Any]:
    header = model_header(recipe_name, to_dict(recipe), info, (source, ImageFormat(info.b_channels)),
                          converted_from=converted_from, images=0, step=0, **more)
    networks_from_header(header)        # RequestError for settings with which the file could not be read.
    checkpoint.save(out, tensors, {"kind": "model", **header})
    return header
