"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
NoiseModel = Annotated[str, typer.Argument(
    metavar="MODEL", help="A model file or a run folder, trained to make images from noise.")]
FORMATS = "png|jpg|webp|bmp|tif|npy"
