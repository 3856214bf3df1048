"""Does a model hide its input in its output, for its backward generator?  Chu et al. 2017 (arXiv 1712.02950).

A translation is changed so little that nobody sees it.  If the backward generator then reconstructs less of
the source, it had read what nobody sees.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.evaluation.audit_answers import Answer, answer, not_tested, ratio_with_interval
from i2i.evaluation.audit_images import HALF_RANGE, Audited, middle, round_to_levels
from i2i.images.convert import make_grid, to_levels
from i2i.images.format import Array
from i2i.inference.batch_translator import translate_tensors
from i2i.metrics.planted_faults import blur, jpeg

NAME, QUESTION = "hidden", "Does it hide its input in its output?"
FAINT = 4               # Levels of 255 on either side of the smoothed image: fainter detail is not seen.
SMOOTHING = 2.0         # Pixels, sigma.
LIMIT = 0.05            # Of what is known of the source.
UNKNOWN = 0.8           # Of the error for another image, from which on nothing is reconstructed.
SHOWN = 4
Images = Sequence[Tensor]


@dataclass(frozen=True)
class Loss:
    """What a change of the translations costs."""

    name: str
    invisible: bool
    changed: float                          # Mean change of the translations, in levels.
    error: float                            # Mean error of the reconstruction, in levels.
    lost: tuple[float, float | None, float | None]      # Share of what was known of the sources.
    honest: float | None                    # The same of real images.


def faint(image: Tensor) -> Tensor:
    """What lies within a few levels of the smoothed image.  (C, H, W)"""
    return (image - smooth(image)).clamp(-FAINT / HALF_RANGE, FAINT / HALF_RANGE)


def smooth(image: Tensor, sigma: float = SMOOTHING) -> Tensor:
    """Gaussian blur.  (C, H, W)"""
    radius = int(3 * sigma)
    weights = torch.exp(-torch.arange(-radius, radius + 1, dtype=torch.float32)**2 / (2 * sigma**2))
    weights /= weights.sum()
    x = F.pad(image[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(x, weights.reshape(1, 1, 1, -1)), weights.reshape(1, 1, -1, 1))[:, 0]


def changes(images: Images, seed: int) -> Iterator[tuple[str, bool, list[Tensor]]]:
    """Changed images, with what was done to them and whether nobody sees it."""
    rng = np.random.default_rng(seed)
    yield "faint detail of another image", True, swap_faint(images)
    yield "noise of 2 levels", True, [round_to_levels(x + torch.from_numpy(rng.normal(
        0, 2 / HALF_RANGE, x.shape)).float()) for x in images]
    yield "32 levels instead of 256", True, [_on_levels(x, lambda a: a // 8 * 8 + 4) for x in images]
    yield "JPEG, quality 75", False, [_on_levels(x, lambda a: jpeg(a, 75, rng)) for x in images]
    yield "blur, 1 pixel", False, [_on_levels(x, lambda a: blur(a, 1, rng)) for x in images]


def swap_faint(images: Images) -> list[Tensor]:
    """Each image with the faint detail of the next instead of its own."""
    return [round_to_levels(x - faint(x) + _fit(faint(images[(i + 1) % len(images)]), x))
            for i, x in enumerate(images)]


def _fit(detail: Tensor, like: Tensor) -> Tensor:
    """The middle of an image on a canvas of another's size."""
    height, width = like.shape[-2:]
    detail = middle(detail, height, width)
    top, left = height - detail.shape[-2], width - detail.shape[-1]
    return F.pad(detail, (left // 2, left - left // 2, top // 2, top - top // 2))


def _on_levels(image: Tensor, change: Callable[[Array], Array]) -> Tensor:
    """Change the levels of an image, one channel or three at a time.  (C, H, W)"""
    levels = to_levels(image).byte().permute(1, 2, 0).numpy()
    groups = [levels] if levels.shape[2] == 3 else np.split(levels, levels.shape[2], 2)
    changed = [np.atleast_3d(change(np.ascontiguousarray(group if group.shape[2] == 3 else group[..., 0])))
               for group in groups]
    return torch.from_numpy(np.concatenate(changed, 2).copy()).permute(2, 0, 1).float() / HALF_RANGE - 1


def find_hidden(audited: Audited, seed: int, progress: Callable[[int, int], None]) -> Answer:
    """The answer to whether the translations hide their sources."""
    model, backward = audited.model, audited.direction[::-1]
    if backward not in model.directions:
        return not_tested(NAME, QUESTION, "Not tested: the model has no backward generator to read what is "
                          "hidden, and so was not rewarded for hiding it.")

    def reconstruct(images: Images) -> list[Tensor]:
        return translate_tensors(model, images, backward)

    written, real = audited.written, [round_to_levels(image) for image in audited.targets[:len(audited)]]
    before, of_real = reconstruct(written), reconstruct(real)
    errors, others = _errors(before, audited.sources), _errors(_turn(before), audited.sources)
    if np.sum(errors) > UNKNOWN * np.sum(others):
        return not_tested(NAME, QUESTION, "Not tested: the backward generator reconstructs the sources "
                          f"hardly better than other images ({np.sum(errors) / np.sum(others):.0%} of the "
                          "squared error), so that nothing can be seen to get lost.")
    losses, changed_real = [], changes(real, seed)
    for k, (name, invisible, changed) in enumerate(changes(written, seed)):
        after = reconstruct(changed)
        honest = None
        if len(real) > 1:
            _, _, images = next(changed_real)
            honest = _lost(reconstruct(images), of_real, of_real)[0]
        losses.append(Loss(name, invisible, _distance(changed, written), _distance(after, audited.sources),
                           _lost(after, before, audited.sources), honest))
        progress(k + 1, 5)
    return _judge(audited, before, reconstruct, losses)


def _judge(audited: Audited, before: Images, reconstruct: Callable[[Images], list[Tensor]],
           losses: Sequence[Loss]) -> Answer:
    worst = max((loss for loss in losses if loss.invisible), key=lambda loss: loss.lost[0])
    known = _distance(before, audited.sources)
    finding = (f"Sources are reconstructed with an error of {known:.3g} levels, and of {worst.error:.3g} "
               f"after a change that nobody sees ({worst.name}): {worst.lost[0]:.1%} of what was known "
               "is lost.")
    picture = _picture(audited, before, reconstruct)
    return answer(
        NAME, QUESTION, worst.lost, LIMIT, len(audited), finding=finding, table=[
            {"change": "none", "translation changed, levels": 0.0, "error of reconstruction, levels": known,
             "lost": 0.0, "lost by real images": 0.0 if audited.targets else None}, *map(_row, losses)],
        picture=picture, caption="Source, translation, its faint detail (32 times as strong, gray: none), "
        "reconstruction, that with the faint detail of another image, and the difference of the two.",
        red="The model passes its cycle loss by a code in faint detail, so a low cycle loss says nothing "
            "about content.  Train with lower lambda_cycle_a and lambda_cycle_b, or with cut, which has no "
            "cycle; and do not give out these translations where their sources must stay unknown.",
        green="Nothing to do: what the backward generator knows, people see.")


def _row(loss: Loss) -> Mapping[str, float | str | None]:
    return {"change": loss.name + ("" if loss.invisible else " (visible)"),
            "translation changed, levels": loss.changed, "error of reconstruction, levels": loss.error,
            "lost": loss.lost[0], "lost by real images": loss.honest}


def _lost(after: Images, before: Images, sources: Images) -> tuple[float, float | None, float | None]:
    """The share of what reconstructions knew of the sources, 0 to 1: squared errors above those from before,
    relative to those of the reconstruction of another image."""
    errors = _errors(before, sources)
    return ratio_with_interval(_errors(after, sources) - errors, _errors(_turn(before), sources) - errors)


def _turn(images: Images) -> list[Tensor]:
    return [*images[1:], images[0]]


def _errors(images: Images, references: Images) -> Array:
    """The mean squared error of each image, over the middle where sizes differ."""
    return np.array([float((_fit(x, y) - y).square().mean())
                     for x, y in zip(images, references, strict=True)])


def _distance(images: Images, references: Images) -> float:
    return HALF_RANGE * float(np.mean([float((x - y).abs().mean())
                                       for x, y in zip(images, references, strict=True)]))


def _picture(audited: Audited, before: Images, reconstruct: Callable[[Images], list[Tensor]]) -> Array:
    """Those of which most is lost with the faint detail of another image."""
    written = audited.written
    after = reconstruct(swap_faint(written))
    size = written[0].shape
    same = [i for i, image in enumerate(written) if image.shape == size]
    chosen = sorted(same, key=lambda i: -float((after[i] - before[i]).square().mean()))[:SHOWN]
    rows = list[list[Tensor | Array]]()
    for i in chosen:
        difference = (4 * (after[i] - before[i]).abs().mean(0) - 1).clamp(-1, 1).expand(3, -1, -1)
        strong = (faint(written[i]) * (HALF_RANGE / FAINT)).clamp(-1, 1).mean(0).expand(3, -1, -1)
        source, *others = (audited.source_rgb(image) for image in (audited.sources[i], before[i], after[i]))
        rows.append([source, audited.target_rgb(written[i]), strong, *others, difference])
    return make_grid(rows)
