"""Do colors drift, are light and dark swapped, are edges and the layout of an image kept?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.evaluation.audit_answers import YELLOW, Answer, answer, not_tested, ratio_with_interval
from i2i.evaluation.audit_images import Audited
from i2i.images.convert import make_grid, to_tensor
from i2i.images.format import LUMA, Array
from i2i.metrics.color import to_lab
from i2i.metrics.feature_networks import exact_float32, frozen_network
from i2i.metrics.intervals import mean_interval, proportion_interval
from i2i.metrics.networks.base import FeatureNetwork

COLOR_LIMIT = 5.0           # Units of CIE Lab, of which about 2 are just seen side by side.
COLOR_NAMES = (("lighter", "darker"), ("redder", "greener"), ("yellower", "bluer"),
               ("more colorful", "less colorful"))
MAX_COLOR_PIXELS = 1 << 16  # Of larger images, whole rows and columns are left out.
INVERTED, INVERTED_LIMIT = -0.2, 0.25       # Correlation of lightness below which, and share of images.
LOST_LIMIT = 0.5
MIN_CONTRAST = 0.1          # How much more alike what belongs together must be than other images.
GRID, MIN_GRID = 12, 8      # Places on a side whose features are compared, and how many must be apart.
EDGE = 0.25                 # Of the strongest gradient, from which on there is an edge.
SHOWN = 4


def judge_colors(audited: Audited) -> Answer:
    """Whether the mean color of translations is that of images of the target side."""
    name, question = "color", "Do its colors drift?"
    if len(audited.targets) < 2:
        return not_tested(name, question, "Not tested: there are no images of the target side.",
                          "Give data with both sides.")
    made, real = (np.array([_mean_color(audited, image) for image in images])
                  for images in (audited.translations, audited.targets))
    differences, halves = made.mean(0) - real.mean(0), []
    for k in range(4):
        if audited.sides.paired and len(made) == len(real):
            low, high = mean_interval(list(made[:, k] - real[:, k]), 4)
            halves.append((high - low) / 2 if low is not None and high is not None else 0.0)
        else:
            ends = [mean_interval(list(each[:, k]), 4) for each in (made, real)]
            halves.append(sum(((high or 0.0) - (low or 0.0))**2 / 4 for low, high in ends)**0.5)
    k = int(np.abs(differences).argmax())
    value, half = abs(float(differences[k])), halves[k]
    words = [COLOR_NAMES[i][int(d < 0)] + f" by {abs(d):.1f}" for i, d in enumerate(differences)]
    return answer(
        name, question, (value, max(0.0, value - half), value + half), COLOR_LIMIT, len(audited),
        unit="of Lab",
        finding=f"Translations are {', '.join(words)} than images of the target side (units of CIE Lab; "
                "about 2 are just seen).",
        red="Compare the two on the sheet: where contents differ between the sides, so do mean colors; where "
            "they do not, train longer or with a larger lambda_identity, or correct the means afterwards.",
        picture=_rows(audited, range(len(audited)), with_targets=True),
        caption="Source, translation, and an image of the target side.")


def _mean_color(audited: Audited, image: Tensor) -> list[float]:
    """Mean lightness, a, b and chroma of an image of the target side."""
    rgb = audited.target_rgb(image)
    step = max(1, round((rgb.shape[0] * rgb.shape[1] / MAX_COLOR_PIXELS)**0.5))
    lab = to_lab(rgb[::step, ::step])
    return [*lab.mean((0, 1)), float(np.hypot(lab[..., 1], lab[..., 2]).mean())]


def judge_inversion(audited: Audited) -> Answer:
    """Whether translations are negatives of their sources."""
    name, question = "inverted", "Are light and dark swapped?"
    known = _true_pairs(audited)
    found = []
    for i, (source, made) in enumerate(zip(*_luma(audited), strict=True)):
        correlation = _correlation(source, made)
        expected = _correlation(source, _luma_of(audited, audited.targets[i], source)) if known else 1.0
        found.append(correlation * np.sign(expected) < INVERTED and (not known or abs(expected) > -INVERTED))
    share = float(np.mean(found))
    which = "where targets are not, or are not where targets are" if known else "of their sources"
    chosen = [i for i, inverted in enumerate(found) if inverted]
    return answer(
        name, question, (share, *proportion_interval(share, len(found))), INVERTED_LIMIT, len(found),
        finding=f"{sum(found)} of {len(found)} translations are negatives {which}.",
        worst="red" if known else YELLOW,
        red="An unpaired model cannot know which way is right: unless the target side is a negative of the "
            "source side, train with lambda_identity or another seed." if not known else
            "Check that the pairs are pairs and both sides were read with the right range.",
        picture=_rows(audited, chosen) if chosen else None, caption="Source and translation.")


def judge_edges(audited: Audited) -> Answer:
    """Whether the edges of sources are edges of their translations."""
    luma, made_luma = _luma(audited)
    sources, made = ([_edges(image) for image in images] for images in (luma, made_luma))
    targets = [_edges(_luma_of(audited, image, like))
               for image, like in zip(audited.targets, luma, strict=True)] if _true_pairs(audited) else None
    invented = np.mean([(found & ~_widen(source)).sum() / max(1, found.sum())
                        for source, found in zip(sources, made, strict=True)])
    return _kept("edges", "Are edges kept?", "share of the sources' edges that are found", _recall,
                 (sources, made, targets),
                 extra=f"; {invented:.0%} of the translations' edges are none of the source",
                 picture=lambda order: _edge_picture(audited, order, sources, made),
                 caption="Source, translation, and edges: kept (gray), lost (red), invented (blue).")


def _recall(source: Array, found: Array) -> float:
    """The share of a source's edges that are found, at most a pixel away."""
    height, width = (min(a, b) for a, b in zip(found.shape, source.shape, strict=True))
    mine = source[:height, :width]
    return float(_widen(found)[:height, :width][mine].mean()) if mine.any() else 1.0


def judge_layout(audited: Audited, judge: str) -> Answer:
    """Whether the places of an image that are alike stay alike: self-similarity of features (Tumanyan et al.
    2022, arXiv 2201.00424, equation 3, with the networks that are here)."""
    network = frozen_network(judge, audited.model.device)
    sources, made = ([_self_similarity(network, rgb(image)) for image in images] for rgb, images in (
        (audited.source_rgb, audited.sources), (audited.target_rgb, audited.translations)))
    targets = [_self_similarity(network, audited.target_rgb(image))
               for image in audited.targets] if _true_pairs(audited) else None
    return _kept("layout", "Do the same places still belong together?",
                 f"correlation of the self-similarity ({judge})", _correlation, (sources, made, targets),
                 picture=lambda order: _rows(audited, order),
                 caption="Source and translation of the images whose layout changed most.")


def _kept(name: str, question: str, what: str, likeness: Callable[[Array, Array], float],
          measured: tuple[Sequence[Array], Sequence[Array], Sequence[Array] | None], *,
          picture: Callable[[Sequence[int]], Array], caption: str, extra: str = "") -> Answer:
    """How much of what sources share with their translations is lost, 0: nothing, 1: as of other images.

    Args:
        likeness: 1 for what is alike.
        measured: of sources, translations and, where these are known, targets.
        picture: of the images that changed most.
    """
    sources, made, targets = measured
    own, other = ([likeness(source, made[(i + step) % len(made)]) for i, source in enumerate(sources)]
                  for step in (0, 1))
    best = [likeness(*pair) for pair in zip(sources, targets, strict=True)] if targets else [1.0] * len(own)
    mean, mean_other, mean_best = (float(np.mean(each)) for each in (own, other, best))
    if mean_best - mean_other < MIN_CONTRAST:
        return not_tested(name, question, f"Not tested: other images are as alike as what belongs "
                          f"together ({what}: {mean_other:.2f} and {mean_best:.2f} of 1).")
    number = ratio_with_interval(np.subtract(best, own), np.subtract(best, other))
    reference = f"; in targets {mean_best:.2f}" if targets else ""
    return answer(
        name, question, number, LOST_LIMIT, len(own), picture=picture(np.argsort(own)[:SHOWN].tolist()),
        caption=caption,
        finding=f"{what[0].upper()}{what[1:]} in translations: {mean:.2f} of 1 (in those of other "
                f"images {mean_other:.2f}{reference}){extra}.",
        red="Look at the sheet for what was lost or invented: if it should stay, give the generator "
            "input_skip, train with lambda_identity or perceptual, or on pairs.")


# ------------------------------------------------------------------------------------------- measures

def _true_pairs(audited: Audited) -> bool:
    """Whether targets are what sources should become, and not just of the same names."""
    return (audited.sides.paired and audited.model.recipe.dataset == "paired"
            and len(audited.targets) == len(audited))


def _luma(audited: Audited) -> tuple[list[Array], list[Array]]:
    """(H, W) of the sources and of their translations, 0 to 255."""
    weights = np.array(LUMA)
    return ([audited.source_rgb(image) @ weights for image in audited.sources],
            [audited.target_rgb(image) @ weights for image in audited.translations])


def _luma_of(audited: Audited, target: Tensor, like: Array) -> Array:
    """(H, W) of an image of the target side, of the size of another."""
    values = audited.target_rgb(target) @ np.array(LUMA)
    if values.shape != like.shape:
        values = F.interpolate(torch.from_numpy(values)[None, None], like.shape, mode="bilinear",
                               antialias=True)[0, 0].numpy()
    return values


def _correlation(x: Array, y: Array) -> float:
    """Pearson's; 0 where one is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 1e-9 else 0.0


def _edges(luma: Array) -> Array:
    """Where the gradient is a good part of the image's strongest, and visible.  (H, W) -> bool"""
    x = np.pad(luma, 1, mode="edge")
    gradient = np.hypot(x[1:-1, 2:] - x[1:-1, :-2], x[2:, 1:-1] - x[:-2, 1:-1])
    return gradient > max(8.0, EDGE * float(np.percentile(gradient, 99)))


@torch.inference_mode()
def _self_similarity(network: FeatureNetwork, rgb: Array) -> Array:
    """Cosines between the features of the places of an image.  (H, W, 3) uint8 -> (pairs,)"""
    image = to_tensor(rgb)
    device = next(iter([*network.parameters(), *network.buffers()])).device
    fine = [name for name, layer in network.layers.items() if min(image.shape[1:]) >= MIN_GRID * layer.stride]
    with exact_float32():
        maps, = network.feature_maps(image[None].to(device), fine[-1:] or list(network.layers)[:1])
    features = F.adaptive_avg_pool2d(maps.float(), GRID)[0].flatten(1)
    features = F.normalize(features - features.mean(1, keepdim=True), dim=0)
    return (features.T @ features).cpu().double().numpy()[np.triu_indices(GRID**2, 1)]


# ------------------------------------------------------------------------------------------- pictures

def _rows(audited: Audited, indices: Sequence[int], *, with_targets: bool = False) -> Array:
    size = audited.translations[indices[0]].shape[-2:]
    chosen = [i for i in indices if audited.translations[i].shape[-2:] == size and not (
        with_targets and (i >= len(audited.targets) or audited.targets[i].shape[-2:] != size))][:SHOWN]
    return make_grid([[audited.source_rgb(audited.sources[i]), audited.target_rgb(audited.translations[i]),
                       *([audited.target_rgb(audited.targets[i])] if with_targets else [])]
                      for i in chosen or indices[:1]])


def _edge_picture(audited: Audited, indices: Sequence[int], sources: Sequence[Array],
                  made: Sequence[Array]) -> Array:
    size, rows = sources[indices[0]].shape, []
    for i in indices:
        if sources[i].shape != size:
            continue
        near_source, near_made = (_widen(each[i]) for each in (sources, made))
        sheet = np.full((*size, 3), 255, np.uint8)
        sheet[sources[i] & near_made] = (150, 150, 150)
        sheet[made[i] & ~near_source] = (40, 90, 220)
        sheet[sources[i] & ~near_made] = (220, 30, 30)
        rows.append([audited.source_rgb(audited.sources[i]), audited.target_rgb(audited.translations[i]),
                     sheet])
    return make_grid(rows)


def _widen(edges: Array) -> Array:
    """Edges and the pixels beside them."""
    return F.max_pool2d(torch.from_numpy(edges).float()[None], 3, 1, 1)[0].numpy() > 0
