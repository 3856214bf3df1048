"""i2i convert."""

import os
from pathlib import Path
from typing import Annotated, Any, cast

from i2i.cli.options import argument, option
from i2i.errors import RequestError

NOTES = {
    "batch": "batch norms use their running statistics, as test.py --eval does; without --eval it used each "
             "image's own: i2i translate --statistics image",
    "spade": "num_upsampling_layers=normal is assumed, as the tensors do not show it; if it was more, add "
             "generator.depth=6",
    "fastgan": "noise within the network is the same for every image and batch norms use their running "
               "statistics; eval.py draws noise anew and uses the statistics of each batch"}


def convert(
    args: Annotated[list[str] | None, argument(
        "FILE|MODEL [KEY=VALUE]...",
        "A generator of pytorch-CycleGAN-and-pix2pix, CUT, pix2pixHD, SPADE or FastGAN (.pth), or of "
        "stylegan2-ada-pytorch (.pkl, of which no code is run, or its state dict as .pth, .npz or "
        ".safetensors), and settings that its tensors do not show, e.g. source_encoding=one-hot "
        "instance_channel=true generator.depth=6. With --to: a model of i2i.")] = None,
    ab: Annotated[str | None, option(
        "FILE.pth", "With --ba: a CycleGAN's generator from A to B, G_A.", "--ab")] = None,
    ba: Annotated[str | None, option("FILE.pth", "Its generator from B to A, G_B.", "--ba")] = None,
    to: Annotated[str | None, option(
        "cyclegan-pix2pix|cut", "Write the generators of a model in the format of that project, and print "
                                "the command that runs them there.", "--to")] = None,
    out: Annotated[str | None, option(
        "FILE|DIR", "The model file; by default FILE.safetensors, or cyclegan.safetensors beside --ab. With "
                    "--to: a folder, by default checkpoints/MODEL.")] = None,
) -> None:
    """Convert another project's checkpoint to a model file, or a model to another project's checkpoint."""
    from i2i import convert as converter
    from i2i.data.sources import check_local
    check_local("--out", out)
    file, settings = (None, args or []) if not args or (ab and ba) else (args[0], args[1:])
    if to is not None:
        _write(file, settings, [ab, ba], to, out)
        return
    pair = bool(ab and ba) and all("=" in word for word in settings)
    if bool(file) == bool(ab or ba) or pair == bool(file):
        raise RequestError("what to convert? accepted: i2i convert FILE, or i2i convert --ab FILE --ba FILE "
                           "for the two generators of a CycleGAN")
    beside = Path(file) if file else Path(str(ab)).with_name("cyclegan")
    target = Path(out) if out else beside.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise RequestError(f"--out {out} must end in .safetensors")
    if file and os.path.realpath(target) == os.path.realpath(file):     # Unlike resolve(), of any link.
        raise RequestError(f"{target} would be overwritten; choose another --out")
    _describe(converter.convert_generator(Path(file), target, settings) if file
              else converter.convert_cyclegan(Path(str(ab)), Path(str(ba)), target, settings), target)


def _describe(header: dict[str, Any], target: Path) -> None:
    from i2i import config, registry
    name = header["recipe"]["name"]
    recipe: Any = config.from_dict(cast(Any, registry.lookup("recipe", name)), header["recipe"]["settings"])
    source, outputs = header["formats"]["a"], header["formats"]["b"]["channels"]
    if source["palette"]:
        summary = (f"label maps of {len(source['palette'])} classes"
                   f"{' and instances' * recipe.instance_channel} -> {outputs} channels")
    elif recipe.sources:
        summary = f"{source['channels']} -> {outputs} channels"
    else:
        height, width = header["info"]["size"]
        classes = f", {len(header['classes'])} classes" if header["classes"] else ""
        summary = f"noise -> {height}x{width}, {outputs} channels{classes}"
    print(f"{header['converted_from']}: {name}, {recipe.generator}, {summary} -> {target}")
    generator = recipe.generator
    batch = generator.options.get("norm") == "batch" and generator.name != "spade"
    if note := NOTES.get("batch" if batch else generator.name):
        print(note)


def _write(file: str | None, settings: list[str], others: list[str | None], to: str, out: str | None) -> None:
    """Convert a model of ours to files of another project."""
    from i2i.convert.to_cyclegan_pix2pix import write_generators
    if not file or settings or any(others):
        raise RequestError(f"what to convert? accepted: i2i convert MODEL --to {to} [--out DIR]")
    model = Path(file)
    folder = Path(out) if out else Path("checkpoints", model.resolve().name if model.is_dir() else model.stem)
    for path, command in write_generators(model, folder, to):
        print(f"{file} -> {path}\n{command}")
