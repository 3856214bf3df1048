"""Our generators as files of pytorch-CycleGAN-and-pix2pix and of contrastive-unpaired-translation (CUT)."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor

from i2i.convert.cyclegan_pix2pix import CUT_PROJECT, PROJECT, filters, resnet_modules, unet_modules
from i2i.convert.fitting import Tensors, tensor_names
from i2i.errors import RequestError, require
from i2i.images.format import ImageFormat
from i2i.inference.model_file import find_model, read_networks
from i2i.registry import Spec, schema
from i2i.runs import checkpoint

PROJECTS = {"cyclegan-pix2pix": PROJECT, "cut": CUT_PROJECT}
# Which of our networks goes into which file, by recipe.
FILES = {"pix2pix": {"G": ""}, "cut": {"G": ""}, "cyclegan": {"G_ab": "_A", "G_ba": "_B"}}
UNETS = {7: "unet_128", 8: "unet_256"}      # What their --netG accepts, by depth.
RESNETS = {6: "resnet_6blocks", 9: "resnet_9blocks"}


class Written(NamedTuple):
    """A file of the other project, and how its generator is run there."""

    path: Path
    command: str


def write_generators(model: Path, out: Path, to: str) -> list[Written]:
    """Write the generators of a model into a folder, as the project `to` names and reads them.

    The files are pickles, as that project's are: dictionaries of tensors and nothing else, which
    `torch.load(weights_only=True)` reads.

    Raises:
        RequestError: if the project has no such generator, or a file is there already.
        JobError: if they cannot be written.
    """
    require(to in PROJECTS, "--to", to, " or ".join(PROJECTS))
    recipe, modules, header = cast(tuple[Any, Any, dict[str, Any]], read_networks(find_model(model)))
    name = header["recipe"]["name"]
    if name not in FILES or (to, name) == ("cut", "cyclegan"):
        raise RequestError(f"{model} is a model of {name}; accepted with --to {to}: models of pix2pix, cut"
                           f"{' and cyclegan' * (to != 'cut')}")
    _check_images(model, recipe, modules, header, to)
    channels, files = [header["formats"][side]["channels"] for side in "ab"], []
    for module, suffix in FILES[name].items():
        path = out / f"latest_net_G{suffix}.pth"
        if path.exists():
            raise RequestError(f"{path} exists already; choose another --out")
        a, b = channels if module != "G_ba" else channels[::-1]
        files.append((path, *_convert(recipe.generator, modules[module].state_dict(), a, b, to)))
    written = []
    for (path, tensors, options), suffix in zip(files, FILES[name].values(), strict=True):
        checkpoint.save_state_dict(path, tensors)
        written.append(Written(path, _command(path, options, suffix, recipe.generator, header, to)))
    return written


def _check_images(model: Path, recipe: Any, modules: Any, header: Mapping[str, Any], to: str) -> None:
    """RequestError for images and settings that the other project does not have."""
    for side in "ab":
        image = ImageFormat.of(header["formats"][side])
        if image != ImageFormat(image.channels, background=image.background, resize=image.resize,
                                palette=image.palette) or image.channels not in (1, 3):
            raise RequestError(f"{model} is for images of {image}; accepted with --to {to}: 8 bits, gray or "
                               "color, without alpha and CLAHE")
    require(recipe.g_weight_norm.name == "none", "g_weight_norm", recipe.g_weight_norm.name,
            f"none with --to {to}")
    if "E" in modules:
        require(not recipe.instance_channel, "instance_channel", "true", f"false with --to {to}")
        require(not modules["E"].state_dict(), "source_encoding", recipe.source_encoding,
                f"channels with --to {to}")


def _convert(spec: Spec, state: Mapping[str, Tensor], a: int, b: int, to: str) -> tuple[Tensors, str]:
    """The tensors of a generator under their names, and the options of test.py that build it, or a line of
    Python where it has none."""
    defaults = {key: option.default for key, option in schema("generator", spec.name).items()}
    options = defaults | dict(spec.options)
    resampling = 1 + (to == "cut")      # How many of the accepted ones below.
    require(spec.name == "resnet" or (spec.name == "unet" and to != "cut"), "generator", spec.name,
            f"{'unet or ' * (to != 'cut')}resnet with --to {to}")
    for key, accepted in (("norm", ("batch", "instance")), ("input_skip", (0,)),
                          ("down", ("strided", "blurpool")[:resampling]),
                          ("up", ("transposed", "bilinear")[:resampling])):
        require(options.get(key, accepted[0]) in accepted, f"generator.{key}", options.get(key),
                f"{' or '.join(map(str, accepted))} with --to {to}")
    width, norm, dropout = options["width"], options["norm"], options["dropout"] > 0
    blurred: Tensors = {}
    if spec.name == "unet":
        depth = len({key.split(".")[1] for key in state if key.startswith("down.")})
        require(depth >= 5, "generator.depth", depth, f"5 or more with --to {to}")
        modules, netG, flags = unet_modules(depth), UNETS.get(depth), ""
        python = f"UnetGenerator({a}, {b}, {depth}, {width}, networks.get_norm_layer({norm!r}), {dropout})"
    else:
        blocks = len({key.split(".")[1] for key in state if ".layers." in key})
        down, up = options["down"] == "blurpool", options["up"] == "bilinear"
        modules, netG = resnet_modules(blocks, down, up, dropout), RESNETS.get(blocks)
        blurred = filters(width, blocks, down, up)
        flags = (" --no_antialias" * (not down) + " --no_antialias_up" * (not up)) if to == "cut" else ""
        python = (f"ResnetGenerator({a}, {b}, {width}, networks.get_norm_layer({norm!r}), {dropout}, {blocks}"
                  f"{f', no_antialias={not down}, no_antialias_up={not up}' * (to == 'cut')})")
    theirs = {ours: key for key, ours in tensor_names(modules).items()}
    tensors = {theirs[key]: tensor.clone() for key, tensor in state.items()} | blurred
    if netG is None:
        return tensors, f"networks.{python}"
    if to == "cut":
        flags += f" --normG {norm}" + " --no_dropout False" * dropout
    else:
        flags = f" --norm {norm}" + " --no_dropout" * (not dropout)
    return tensors, f"--netG {netG} --ngf {width} --input_nc {a} --output_nc {b}{flags}"


def _command(path: Path, options: str, suffix: str, spec: Spec, header: Mapping[str, Any], to: str) -> str:
    """What to type in the other project's folder to translate images."""
    if options.startswith("networks."):
        return (f"G = {options}; G.load_state_dict(torch.load({str(path.absolute())!r}))     # In Python, as "
                "test.py has no such --netG.")
    folder, size = path.absolute().parent, header["info"]["size"][0]
    # Their U-Nets take images of one size; their ResNets images of any.
    resize = f"--load_size {size} --crop_size {size}" if spec.name == "unet" else "--preprocess none"
    data = "--dataroot DIR --CUT_mode CUT" if to == "cut" else "--dataroot IMAGES --model test"
    suffix = f" --model_suffix {suffix}" if suffix else ""
    return (f"python test.py {data} --checkpoints_dir {shlex.quote(str(folder.parent))} --name "
            f"{shlex.quote(folder.name)}{suffix} {options} {resize} --eval")
