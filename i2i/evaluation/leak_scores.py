"""Memorization of features of one network, of fakes and of held-out images in their place."""

import math
from collections.abc import Callable

import numpy as np

from i2i.images.format import Array
from i2i.metrics import memorization
from i2i.metrics.copies import copy_threshold
from i2i.metrics.detection import auroc
from i2i.metrics.intervals import Z95, proportion_interval
from i2i.metrics.precision_recall import nearest_neighbors
from i2i.metrics.set_metrics import Score

CELLS = 3
MAX_FITTED = 3000           # Images of each set in the likelihoods, which compare all with all.
MAX_CLUSTERED = 5000        # Training images that the cells are found with.
Scores = dict[str, Score]


def share_score(chosen: Array, better: str = "", note: str = "") -> Score:
    """The share of images for which something holds, with Wilson's interval."""
    share = float(chosen.mean())
    return Score(share, *proportion_interval(share, len(chosen)), better=better, note=note)


def sample(n: int, most: int, seed: int) -> Array:
    """At most that many of n indices, in order."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


def leak_scores(train: Array, fake: Array, held_out: Array | None, *, seed: int,
                warn: Callable[[str], None]) -> tuple[Scores, Scores]:
    """All measures of features, of the fakes, and of held-out images in their place.

    Args:
        train, fake, held_out: (N, D) each.  Without held-out images, distances between training images say
            what is near, and measures that need images the model has not seen are left out.
        seed: of samples and halves.
        warn: called with what could not be computed, and why.
    """
    distance, index = nearest_neighbors(fake, train)
    scores = {"authentic": share_score(memorization.authentic(distance, index, train),
                                       note="less than held-out images: copied")}
    others: Scores = {}
    if held_out is None:
        rows = sample(len(train), len(fake), seed)
        reference, _ = nearest_neighbors(train[rows], train, exclude=rows)
    else:
        reference, index = nearest_neighbors(held_out, train)
        others["authentic"] = share_score(memorization.authentic(reference, index, train))
    threshold, share = copy_threshold(reference)
    scores["near_copies"] = share_score(distance < threshold, "lower", f"by chance {share:.2g}")
    others["near_copies"] = share_score(reference < threshold)
    if held_out is None:
        return scores, others
    halves = np.array_split(np.random.default_rng(seed).permutation(len(held_out)), 2)
    first, second = (held_out[np.sort(half)] for half in halves)
    for name, measure in (("c_t", _copying), ("fld_gap", _likelihood_gap), ("membership_auc", _membership)):
        try:
            scores[name] = measure(train, fake, held_out, seed)
        except ValueError as error:
            warn(f"{name} is left out: {error}")
            continue
        try:        # Half of the held-out images in the place of fakes, against the other half.
            others[name] = measure(train, first, second, seed)
        except ValueError as error:
            warn(f"{name} of held-out images is left out: {error}")
    return scores, others


def _copying(train: Array, fake: Array, held_out: Array, seed: int) -> Score:
    centers = memorization.find_cells(train[sample(len(train), MAX_CLUSTERED, seed)], CELLS, seed)
    fake_cells, held_out_cells, train_cells = (memorization.assign_cells(each, centers)
                                               for each in (fake, held_out, train))
    ours, theirs = (memorization.nearest_in_cells(x, cells, train, train_cells)
                    for x, cells in ((fake, fake_cells), (held_out, held_out_cells)))
    value, deviation = memorization.copying_score(ours, theirs, fake_cells, held_out_cells)
    return Score(value, note=f"nearer to training images than held-out ones below {-Z95 * deviation:.2f}")


def _likelihood_gap(train: Array, fake: Array, held_out: Array, seed: int) -> Score:
    of_train, of_held_out = memorization.feature_likelihoods(
        *(each[sample(len(each), MAX_FITTED, seed)] for each in (train, held_out, fake)))
    value = 100 * float(of_train.mean() - of_held_out.mean())
    margin = 100 * Z95 * math.sqrt(sum(each.var(ddof=1) / len(each) for each in (of_train, of_held_out)))
    return Score(value, note="memorized below 0").with_margin(margin)


def _membership(train: Array, fake: Array, held_out: Array, seed: int) -> Score:
    # The attack of Chen et al. 2020 (GAN-Leaks, arXiv 1909.03935, section 5.2) on generated images alone.
    members = train[sample(len(train), max(len(held_out), len(fake)), seed)]
    value, low, high = auroc(*(nearest_neighbors(each, fake)[0] for each in (members, held_out)))
    return Score(value, low, high, note="0.5: fakes are as near to held-out images as to training images")
