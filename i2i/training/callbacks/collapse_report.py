"""What a user gets about a collapse: an image of it, and commands to try against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor
from torch.nn import functional as F

from i2i.data.sampler import evenly_spaced
from i2i.images.convert import tensor_to_rgb
from i2i.registry import build
from i2i.training.job import Job
from i2i.training.plan import command

Pixels = NDArray[np.uint8]      # (H, W, 3).
COLUMNS, ROWS = 8, 6            # Of images in a block.
MAX_PAIRS = 8
MAX_SIDE = 128                  # Larger images are shrunk.
FRAME_COLOR = (214, 39, 40)
TITLE_HEIGHT, GAP = 16, 4       # Pixels.
MAX_ADVICE = 4


def collapse_grid(generated: Tensor, others: Mapping[str, Tensor], duplicates: NDArray[Any]) -> Pixels:
    """Blocks of inputs (if any), generated and real images side by side, and the nearest pairs below.

    Args:
        generated: (N, C, H, W).
        others: "real" and possibly "inputs", (M, C, H, W) each, all of which are shown.
        duplicates: pairs of near-duplicates in `generated`, nearest first, (P, 2).

    Returns:
        (H, W, 3) uint8.
    """
    repeated = set(np.unique(duplicates).tolist())
    shown = evenly_spaced(len(generated), COLUMNS * ROWS)       # And so from all classes.
    title = f"generated; framed: {len(repeated & set(shown))} of {len(shown)} have a near-duplicate"
    tiles = {name: [tile(image) for image in images] for name, images in others.items()}
    tiles |= {title: [tile(generated[i], framed=i in repeated) for i in shown], "real": tiles.pop("real")}
    top = np.concatenate([block(name, images, COLUMNS) for name, images in tiles.items()], 1)
    if not len(duplicates):
        return top
    seen, chosen = set[int](), list[list[int]]()        # Pairs that have no image in common.
    for pair in duplicates.tolist():
        if not seen & set(pair) and len(chosen) < MAX_PAIRS:
            seen |= set(pair)
            chosen.append(pair)
    pairs = np.array(chosen)
    row = block("nearest pairs, one above the other", [tile(generated[i]) for i in pairs.T.flatten()],
                len(pairs))
    bottom = np.full((row.shape[0], top.shape[1], 3), 255, np.uint8)
    width = min(row.shape[1], top.shape[1])
    bottom[:, :width] = row[:, :width]
    return np.concatenate([top, bottom])


def shrink(images: Tensor) -> Tensor:
    """Images (N, C, H, W) no larger than they are shown, on the CPU."""
    scale, images = MAX_SIDE / max(images.shape[-2:]), images.float()
    return (images if scale >= 1 else F.interpolate(images, scale_factor=scale, mode="area")).cpu()


def tile(image: Tensor, *, framed: bool = False) -> Pixels:
    """An image (C, H, W) with a margin, in which a frame is drawn."""
    inner = ImageOps.expand(Image.fromarray(tensor_to_rgb(image)), 1, "white")
    return np.asarray(ImageOps.expand(inner, GAP - 1, FRAME_COLOR if framed else "white"))


def block(title: str, tiles: Sequence[Pixels], columns: int) -> Pixels:
    """Rows of equally large tiles under a title."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (columns * width + 2 * GAP, TITLE_HEIGHT + rows * height), "white")
    for i, each in enumerate(tiles):
        canvas.paste(Image.fromarray(each),
                     (GAP + i % columns * width, TITLE_HEIGHT + i // columns * height))
    ImageDraw.Draw(canvas).text((GAP, 2), title, fill=(0, 0, 0))
    return np.asarray(canvas)


@dataclass(frozen=True)
class Advice:
    """Why something may help, and the command line."""

    reason: str
    command: str


# Reason and settings, the cheapest or best founded first.
INTER_CLASS = (
    ("D compares an image with its class by an inner product (Miyato and Koyama 2018)",
     "discriminator.condition=projection"),
    ("every norm of G is conditioned on the class (de Vries et al. 2017)", "generator.condition=batchnorm"),
)
GENERAL = (
    ("D sees two images at once and notices that they are alike (PacGAN, Lin et al. 2018)", "pack=2"),
    ("D sees how much a batch varies (Karras et al. 2018)", "discriminator.group=4"),
    ("D cannot become steep around real images (Mescheder et al. 2018)", "penalty=r1"),
    ("D, without batch norm, cannot become steep around real images (Mescheder et al. 2018)",
     "discriminator.norm=none penalty=r1"),
    ("D, without batch norm, cannot become steep around real images (Mescheder et al. 2018)",
     "discriminator.norm=instance penalty=r1"),
    ("paired logits and both penalties: no image may be dropped (R3GAN, Huang et al. 2024)",
     "adversarial=rpgan penalty=r1r2 discriminator.norm=none"),
    ("D looks further ahead than G moves (Metz et al. 2017)",
     "unrolling=adam unrolling.steps=5 unrolling.second_order=false"),
    ("D sees augmented images, so it cannot memorize a few of them (Karras et al. 2020a)", "augment=ada"),
)
TRANSLATION = (
    ("D is Lipschitz (Miyato et al. 2018)", "d_weight_norm=spectral"),
    ("the squared loss does not saturate when D is certain (Mao et al. 2017)", "adversarial=lsgan"),
)


def advice_for(job: Job, kind: str) -> list[Advice]:
    """At most four things to try against a kind of collapse of this job."""
    candidates = [*(INTER_CLASS if kind == "inter-class" else ()),
                  *(TRANSLATION if job.recipe.sources else ()), *GENERAL]
    halved = []
    for key in ("g_optimizer", "d_optimizer"):
        if hasattr(job.recipe, key):
            optimizer = build("optimizer", getattr(job.recipe, key), [torch.zeros(1, requires_grad=True)])
            halved.append(f"{key}.lr={optimizer.param_groups[0]['lr'] / 2:g}")
    chosen: dict[str, Advice] = {}
    for reason, text in candidates:
        topic = "penalty=r1" if "penalty=r1" in text.split() else text      # Only one way to have it.
        line = command(job, text.split())       # None if the settings are refused or change nothing.
        if line and topic not in chosen and len(chosen) < MAX_ADVICE - bool(halved):
            chosen[topic] = Advice(reason, line)
    if halved and (line := command(job, halved)):
        chosen["rates"] = Advice("both players take steps half as long", line)
    return list(chosen.values())
