"""Does a translation change with a shift by a pixel, with noise, with what else is in its batch?"""

import numpy as np
import torch
from torch import Tensor

from i2i.evaluation.audit_answers import Answer, answer, ratio_with_interval
from i2i.evaluation.audit_images import HALF_RANGE, Audited
from i2i.images.convert import make_grid
from i2i.images.format import Array
from i2i.inference.batch_translator import translate_tensors

SHIFT_LIMIT = 0.5       # Of the change by the shift itself.
NOISE_LIMIT = 3.0       # Levels in the translation for one in the source.
BATCH_LIMIT = 0.5       # Levels, which rounding to 8 bits hides.
MARGIN = 8              # A part of the side, which is left out at the borders, where padding differs.
SHOWN = 4


def judge_shift(audited: Audited) -> Answer:
    """Whether the translation of a shifted source is the shifted translation."""
    made = [image.to(torch.float32) for image in audited.translations]
    numerators, denominators, worst = np.zeros(len(made)), np.zeros(len(made)), np.zeros(len(made))
    differences: list[Tensor] = [torch.empty(0)] * len(made)
    for dim in (-1, -2):
        shifted = translate_tensors(audited.model, [shift(image, dim) for image in audited.sources],
                                audited.direction)
        for i, (one, other) in enumerate(zip(made, shifted, strict=True)):
            moved = _inside(shift(one, dim))
            difference = (_inside(other) - moved).abs()
            numerators[i] += float(difference.mean())
            denominators[i] += float((_inside(one) - moved).abs().mean())
            if float(difference.mean()) >= worst[i]:
                worst[i], differences[i] = float(difference.mean()), difference
    if not denominators.any():      # Constant images.
        denominators += 1
    number = ratio_with_interval(numerators, denominators)
    return answer(
        "shift", "Does a shift by a pixel change it?", number, SHIFT_LIMIT, len(made),
        finding=f"A source shifted by a pixel is translated otherwise by "
                f"{HALF_RANGE * numerators.mean() / 2:.2g} "
                f"levels than the shifted translation, {number[0]:.0%} of what the shift itself changes.",
        red="Films will flicker and tiles will not fit: train with crops at random places (a larger "
            "data.load_size), with generator.up=bilinear, and generator.down=blurpool in a resnet.",
        picture=_difference_sheet(audited, differences, worst),
        caption="Source, translation, and where the translation of the shifted source differs (8 times as "
                "strong).")


def shift(image: Tensor, dim: int) -> Tensor:
    """Move an image by a pixel to the right or downwards, repeating its border."""
    n = image.shape[dim]
    return image.index_select(dim, torch.arange(-1, n - 1).clamp(min=0))


def _inside(image: Tensor) -> Tensor:
    """Without the borders.  (C, H, W)"""
    top, left = (1 + side // MARGIN if side > 4 else 0 for side in image.shape[-2:])
    return image[:, top:image.shape[-2] - top, left:image.shape[-1] - left]


def judge_noise(audited: Audited, seed: int) -> Answer:
    """How much noise of one level in the source changes the translation."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randint(-1, 2, image.shape, generator=generator) / HALF_RANGE for image in audited.sources]
    if audited.sides.sources.format.alpha:
        for each in noise:
            each[-1] = 0
    noisy = translate_tensors(audited.model, [x + n for x, n in zip(audited.sources, noise, strict=True)],
                          audited.direction)
    changed = [float((x - y).abs().mean()) for x, y in zip(noisy, audited.translations, strict=True)]
    number = ratio_with_interval(changed, [max(1e-9, float(n.abs().mean())) for n in noise])
    return answer(
        "noise", "Does noise of one level change it?", number, NOISE_LIMIT, len(noisy),
        unit="levels per level",
        finding=f"Noise of at most one level of 255 in the source changes the translation by "
                f"{HALF_RANGE * float(np.mean(changed)):.2g} levels on average, {number[0]:.2g} times "
                "as much.",
        red="Recompressed or rescanned sources will be translated otherwise: train on sources with noise and "
            "JPEG (data.pipelines), or smooth sources a little before they are translated.")


def judge_batch(audited: Audited) -> Answer:
    """Whether the translation of an image depends on the other images of its batch."""
    changed = []
    for source, alone in zip(audited.sources, audited.translations, strict=True):
        batch = torch.stack([source, -source, source.flip(-1), torch.zeros_like(source)])
        together = audited.model(batch, direction=audited.direction)[0].cpu()
        changed.append(HALF_RANGE * float((together - alone).abs().max()))
    value = max(changed)
    return answer(
        "batch", "Does it depend on the other images in its batch?", (value, None, None), BATCH_LIMIT,
        len(changed), unit="levels",
        finding=f"Beside other images in a batch, a translation changes by at most {value:.2g} levels.",
        red="Results depend on how images are grouped: translate one image at a time (--batch 1), and train "
            "with norm=instance or batch, whose statistics are fixed afterwards.")


def _difference_sheet(audited: Audited, differences: list[Tensor], worst: Array) -> Array:
    """The images that change most."""
    order = sorted(range(len(worst)), key=lambda i: -worst[i])
    size = differences[order[0]].shape
    rows = list[list[Tensor | Array]]()
    for i in [i for i in order if differences[i].shape == size][:SHOWN]:
        heat = (8 * differences[i].mean(0) - 1).clamp(max=1).expand(3, -1, -1)
        rows.append([audited.source_rgb(_inside(audited.sources[i])),
                     audited.target_rgb(_inside(audited.translations[i])), heat])
    return make_grid(rows)
