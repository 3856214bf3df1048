"""i2i convert."""

import os
from pathlib import Path
from typing import Annotated, Any, cast

from i2i.cli.options import argument, option
from i2i.errors import RequestError


def convert(
    file: Annotated[str | None, argument(
        "FILE", "A generator of pytorch-CycleGAN-and-pix2pix or of CUT (.pth) or of stylegan2-ada-pytorch "
                "(.pkl, of which no code is run, or its state dict as .pth, .npz or .safetensors).")] = None,
    ab: Annotated[str | None, option(
        "FILE.pth", "With --ba: a CycleGAN's generator from A to B, G_A.", "--ab")] = None,
    ba: Annotated[str | None, option("FILE.pth", "Its generator from B to A, G_B.", "--ba")] = None,
    out: Annotated[str | None, option(
        "FILE", "The model file; by default FILE.safetensors, or cyclegan.safetensors beside --ab.")] = None,
) -> None:
    """Convert another project's checkpoint to a model file."""
    from i2i import config, registry
    from i2i import convert as converter
    if bool(file) == bool(ab or ba) or bool(ab) != bool(ba):
        raise RequestError("what to convert? accepted: i2i convert FILE, or i2i convert --ab FILE --ba FILE "
                           "for the two generators of a CycleGAN")
    beside = Path(file) if file else Path(str(ab)).with_name("cyclegan")
    target = Path(out) if out else beside.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise RequestError(f"--out {out} must end in .safetensors")
    if file and os.path.realpath(target) == os.path.realpath(file):     # Unlike resolve(), of any link.
        raise RequestError(f"{target} would be overwritten; choose another --out")
    header = (converter.convert_generator(Path(file), target) if file
              else converter.convert_cyclegan(Path(str(ab)), Path(str(ba)), target))
    name = header["recipe"]["name"]
    recipe: Any = config.from_dict(cast(Any, registry.lookup("recipe", name)), header["recipe"]["settings"])
    inputs, outputs = (header["formats"][side]["channels"] for side in "ab")
    if recipe.sources:
        summary = f"{inputs} -> {outputs} channels"
    else:
        height, width = header["info"]["size"]
        classes = f", {len(header['classes'])} classes" if header["classes"] else ""
        summary = f"noise -> {height}x{width}, {outputs} channels{classes}"
    print(f"{header['converted_from']}: {name}, {recipe.generator}, {summary} -> {target}")
    if recipe.generator.options.get("norm") == "batch":
        print("batch norms use their running statistics, as test.py --eval does; without --eval it used each "
              "image's own: i2i translate --statistics image")
