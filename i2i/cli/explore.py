"""i2i explore: interpolate, mix, walk."""

from __future__ import annotations

from typing import Annotated

import typer

from i2i.cli.application import command_group
from i2i.cli.options import Device, NoiseModel
from i2i.errors import RequestError, require

app = command_group("Look at what a model from noise has learned: interpolations, mixed styles, walks.")

SheetFile = Annotated[str, typer.Option(metavar="FILE.png|jpg", help="The image to write.")]
Classes = Annotated[str | None, typer.Option(
    metavar="NAME,NAME|balanced", help="Classes to show; by default all.")]
Truncation = Annotated[float, typer.Option(
    help="Below 1: styles nearer to their mean, less variety. Style networks only.")]
Seed = Annotated[int, typer.Option(min=0, help="Another seed, other images.")]


@app.command()
def interpolate(
    model: NoiseModel, out: SheetFile,
    grid: Annotated[str, typer.Option(
        metavar="COLUMNS[xROWS]",
        help="With ROWS the plane between four images, else a row for each class.")] = "8",
    classes: Classes = None, truncation: Truncation = 1.0, seed: Seed = 0, device: Device = "auto",
) -> None:
    """Interpolate between images: on arcs in the noise, on lines in the styles of networks that have them."""
    from i2i.inference import animation, explore
    from i2i.inference.model import load
    path, (columns, rows) = animation.check_output(out, animation.SHEETS), explore.parse_grid(grid)
    steps = explore.interpolate(load(model, device), columns, rows, classes=classes, truncation=truncation,
                                seed=seed)
    animation.save_sheet(path, explore.sheet(steps))
    print(path)


@app.command()
def mix(
    model: NoiseModel, out: SheetFile,
    grid: Annotated[str, typer.Option(
        metavar="COLUMNSxROWS", help="How many images are mixed with how many.")] = "5x5",
    layers: Annotated[str | None, typer.Option(
        metavar="FIRST-LAST", help="Layers that have the column's style; by default the finer half.")] = None,
    classes: Classes = None, truncation: Truncation = 1.0, seed: Seed = 0, device: Device = "auto",
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
    out: Annotated[str, typer.Option(
        metavar="FILE.gif|mp4|png|jpg", help="A film that can run in a loop; as png or jpg a strip.")],
    frames: Annotated[int, typer.Option(help="How many in all.")] = 96,
    fps: Annotated[int | None, typer.Option(help="Frames per second of a film; by default 24.")] = None,
    stops: Annotated[int, typer.Option(help="How many images it passes.")] = 4,
    classes: Classes = None, truncation: Truncation = 1.0, seed: Seed = 0, device: Device = "auto",
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
