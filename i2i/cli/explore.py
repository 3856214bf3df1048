"""i2i explore: arithmetic, interpolate, invert, mix, walk."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from i2i.cli.application import command_group
from i2i.cli.options import (
    NO_JSON,
    Classes,
    Device,
    Json,
    NoiseModel,
    Plugins,
    argument,
    option,
    output_option,
)
from i2i.errors import RequestError, printable, require
from i2i.files import location_of

if TYPE_CHECKING:
    from i2i.inference.model import Model as TrainedModel

app = command_group("Look at what a model from noise has learned: interpolations, mixed styles, walks, and "
                    "the latents of images.")

SheetFile = Annotated[str, output_option("FILE.png|jpg|URL", "The image to write.")]
Truncation = Annotated[float, option(
    None, "Below 1: styles nearer to their mean, less variety. Style networks only.")]
Seed = Annotated[int, option(None, "Another seed, other images.", min=0)]
Seeds = Annotated[str | None, option("SEED,SEED", "The first image of each of these seeds.")]
LatentsFile = Annotated[str | None, option(
    "FILE.npz", "The images of these latents, which i2i explore invert finds.")]


@app.command()
def interpolate(
    model: NoiseModel, out: SheetFile,
    grid: Annotated[str, option(
        "COLUMNS[xROWS]", "With ROWS the plane between four images, else a row from each to the next, "
                          "for each class.")] = "8",
    seeds: Seeds = None, latents: LatentsFile = None, classes: Classes = None, truncation: Truncation = 1.0,
    seed: Seed = 0, device: Device = "auto", plugin: Plugins = None,
) -> None:
    """Interpolate between images: on arcs in the noise, on lines in the styles of networks that have them."""
    from i2i.inference import animation, explore
    from i2i.inference.shared_model import load_shared
    path, (columns, rows) = animation.check_output(out, animation.SHEETS), explore.parse_grid(grid)
    loaded = load_shared(model, device)
    steps = explore.interpolate(loaded, columns, rows, classes=classes, truncation=truncation, seed=seed,
                                **_chosen(loaded, seeds, latents))
    animation.save_sheet(path, explore.sheet(steps))
    print(location_of(path))


@app.command()
def invert(
    model: NoiseModel, images: Annotated[list[str], argument("INPUT...", "Images, folder trees or zips.")],
    out: Annotated[str, option("DIR", "Where a picture of each image and its result goes, and latents.npz.")],
    n: Annotated[int | None, option("N", "How many of the images; by default all.", "--n", min=1)] = None,
    steps: Annotated[int | None, option(None, "Steps of the search for each image; by default 200.")] = None,
    starts: Annotated[int | None, option(None, "Points it starts from; by default 8.")] = None,
    perceptual: Annotated[float | None, option(
        None, "Weight of the distance in the features of EfficientNet-Lite0; by default 0.1; 0: pixels "
              "alone.")] = None,
    classes: Classes = None, seed: Seed = 0, json_output: Json = NO_JSON, device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Find the latents (styles, in networks that have them) from which a model makes images, or nearly so."""
    from i2i.cli.options import writable_folder
    from i2i.cli.progress import ProgressBars
    from i2i.inference.inversion import invert_images
    from i2i.inference.shared_model import load_shared
    loaded, folder = load_shared(model, device), writable_folder("--out", out)
    with ProgressBars() as bars:
        found = invert_images(
            loaded, images, folder, classes=classes, n=n, steps=steps, starts=starts, perceptual=perceptual,
            seed=seed, warn=lambda line: print(f"note: {printable(line)}", file=sys.stderr),
            progress=lambda done, total: bars.update("images", done, total))
    print(f"{len(found.names)} images -> {out}  (PSNR {sum(found.psnr) / len(found.psnr):.1f} dB on average, "
          f"{min(found.psnr):.1f} at worst)")
    json_output.write({"out": out, "psnr": dict(zip(found.names, found.psnr, strict=True)),
                       "mean": sum(found.psnr) / len(found.psnr), "worst": min(found.psnr)})


def _chosen(model: TrainedModel, seeds: str | None, latents: str | None) -> dict[str, Any]:
    from i2i.config import parse
    from i2i.inference.latents import Latents
    return {"seeds": parse("--seeds", seeds, tuple[int, ...]) if seeds is not None else (),
            "latents": None if latents is None else Latents.read(latents, model)}


@app.command()
def arithmetic(
    model: NoiseModel, out: SheetFile,
    grid: Annotated[int, option("COLUMNS", "How many weights of C - B, from 0 on.")] = 5,
    strength: Annotated[float, option(None, "The largest weight of C - B.")] = 1.0,
    seeds: Annotated[str | None, option("A,B,C", "The first image of each of these seeds.")] = None,
    latents: LatentsFile = None, classes: Classes = None, truncation: Truncation = 1.0, seed: Seed = 0,
    device: Device = "auto", plugin: Plugins = None,
) -> None:
    """Add to image A what distinguishes C from B: A, B, C and A - B + C, step by step, for each class."""
    from i2i.inference import animation, explore
    from i2i.inference.shared_model import load_shared
    path = animation.check_output(out, animation.SHEETS)
    loaded = load_shared(model, device)
    rows = explore.arithmetic(loaded, grid, strength=strength, classes=classes, truncation=truncation,
                              seed=seed, **_chosen(loaded, seeds, latents))
    animation.save_sheet(path, explore.sheet(rows))
    print(location_of(path))


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
    from i2i.inference.shared_model import load_shared
    path, (columns, rows) = animation.check_output(out, animation.SHEETS), explore.parse_grid(grid)
    if rows is None:
        raise RequestError(f"--grid {grid} has no rows; accepted: COLUMNSxROWS, such as 5x5")
    mixed = explore.mix(load_shared(model, device), columns, rows, layers=layers, classes=classes,
                        truncation=truncation, seed=seed)
    animation.save_sheet(path, explore.sheet(mixed))
    print(location_of(path))


@app.command()
def walk(
    model: NoiseModel,
    out: Annotated[str, output_option(
        "FILE.gif|mp4|png|jpg|URL", "A film that can run in a loop; as png or jpg a strip.")],
    frames: Annotated[int, option(None, "How many in all.")] = 96,
    fps: Annotated[int | None, option(None, "Frames per second of a film; by default 24.")] = None,
    stops: Annotated[int, option(None, "How many images of a seed it passes.")] = 4,
    seeds: Seeds = None, latents: LatentsFile = None, classes: Classes = None,
    truncation: Truncation = 1.0, seed: Seed = 0, device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Walk in a closed loop past some images, for all classes at once."""
    from i2i.inference import animation, explore
    from i2i.inference.shared_model import load_shared
    path = animation.check_output(out, (*animation.MAX_FPS, *animation.SHEETS))
    max_fps = animation.MAX_FPS.get(path.suffix.lower())
    if max_fps is None and fps is not None:
        raise RequestError(f"--fps {fps} is for films; {out} is a strip")
    fps = animation.DEFAULT_FPS if fps is None else fps
    require(max_fps is None or 1 <= fps <= max_fps, "--fps", fps, f"1 to {max_fps}")
    loaded = load_shared(model, device)
    images = explore.walk(loaded, frames, stops=stops, classes=classes, truncation=truncation, seed=seed,
                          **_chosen(loaded, seeds, latents))
    if max_fps is None:
        animation.save_sheet(path, explore.strip(images, frames))
    else:
        animation.save_animation(path, map(explore.frame, images), frames, fps)
    print(location_of(path))
