"""i2i explore: interpolate, reconstruct, mix, walk."""

import sys
from typing import Annotated

from i2i.cli.application import command_group
from i2i.cli.options import Classes, Device, NoiseModel, Plugins, argument, option
from i2i.errors import RequestError, printable, require

app = command_group("Look at what a model from noise has learned: interpolations, reconstructions, mixed "
                    "styles, walks.")

SheetFile = Annotated[str, option("FILE.png|jpg", "The image to write.")]
Truncation = Annotated[float, option(
    None, "Below 1: styles nearer to their mean, less variety. Style networks only.")]
Seed = Annotated[int, option(None, "Another seed, other images.", min=0)]


@app.command()
def interpolate(
    model: NoiseModel, out: SheetFile,
    grid: Annotated[str, option(
        "COLUMNS[xROWS]", "With ROWS the plane between four images, else a row for each class.")] = "8",
    image: Annotated[list[str] | None, option(
        "FILE", "Between these instead, of models that invert; twice, or four times with ROWS.")] = None,
    classes: Classes = None, truncation: Truncation = 1.0, seed: Seed = 0, device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Interpolate between images: on arcs in the noise, on lines in the styles of networks that have them."""
    from i2i.inference import animation, explore
    from i2i.inference.model import load
    path, (columns, rows) = animation.check_output(out, animation.SHEETS), explore.parse_grid(grid)
    steps = explore.interpolate(load(model, device), columns, rows, classes=classes, truncation=truncation,
                                seed=seed, images=image or (), warn=_warn)
    animation.save_sheet(path, explore.sheet(steps))
    print(path)


@app.command()
def reconstruct(
    model: NoiseModel, images: Annotated[str, argument("INPUT", "An image, a folder tree or a zip.")],
    out: SheetFile,
    n: Annotated[int, option("N", "How many of the images.", "--n", min=1)] = 8,
    classes: Classes = None, device: Device = "auto", plugin: Plugins = None,
) -> None:
    """Show images, and below them what the model makes of the noise it finds for each."""
    from i2i.inference import animation, explore
    from i2i.inference.model import load
    path = animation.check_output(out, animation.SHEETS)
    rows, psnr = explore.reconstruct(load(model, device), [images], n, classes=classes, warn=_warn)
    animation.save_sheet(path, explore.sheet(rows))
    print(f"{path}  (PSNR {psnr:.1f} dB)")


@app.command()
def mix(
    model: NoiseModel, out: SheetFile,
    grid: Annotated[str, option("COLUMNSxROWS", "How many images are mixed with how many.")] = "5x5",
    layers: Annotated[str | None, option(
        "FIRST-LAST", "Layers that have the column's style; by default the finer half.")] = None,
    classes: Classes = None, truncation: Truncation = 1.0, seed: Seed = 0, device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Show each row's image with the column's styles in some layers. Style networks only."""
    from i2i.inference import animation, explore
    from i2i.inference.model import load
    path, (columns, rows) = animation.check_output(out, animation.SHEETS), explore.parse_grid(grid)
    if rows is None:
        raise RequestError(f"--grid {grid} has no rows; accepted: COLUMNSxROWS, such as 5x5")
    mixed = explore.mix(load(model, device), columns, rows, layers=layers, classes=classes,
                        truncation=truncation, seed=seed)
    animation.save_sheet(path, explore.sheet(mixed))
    print(path)


@app.command()
def walk(
    model: NoiseModel,
    out: Annotated[str, option(
        "FILE.gif|mp4|png|jpg", "A film that can run in a loop; as png or jpg a strip.")],
    frames: Annotated[int, option(None, "How many in all.")] = 96,
    fps: Annotated[int | None, option(None, "Frames per second of a film; by default 24.")] = None,
    stops: Annotated[int, option(None, "How many images it passes.")] = 4,
    classes: Classes = None, truncation: Truncation = 1.0, seed: Seed = 0, device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Walk in a closed loop past some images, for all classes at once."""
    from i2i.inference import animation, explore
    from i2i.inference.model import load
    path = animation.check_output(out, (*animation.MAX_FPS, *animation.SHEETS))
    max_fps = animation.MAX_FPS.get(path.suffix.lower())
    if max_fps is None and fps is not None:
        raise RequestError(f"--fps {fps} is for films; {out} is a strip")
    fps = animation.DEFAULT_FPS if fps is None else fps
    require(max_fps is None or 1 <= fps <= max_fps, "--fps", fps, f"1 to {max_fps}")
    images = explore.walk(load(model, device), frames, stops=stops, classes=classes, truncation=truncation,
                          seed=seed)
    if max_fps is None:
        animation.save_sheet(path, explore.strip(images, frames))
    else:
        animation.save_animation(path, map(explore.frame, images), frames, fps)
    print(path)


def _warn(line: str) -> None:
    print(f"note: {printable(line)}", file=sys.stderr)
