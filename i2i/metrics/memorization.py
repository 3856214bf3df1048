"""Does a generator repeat its training images?  Measures of features, beside images that it has not seen.

Rows are float64 where they are compared; distances that decide are exact, not from matrix products.
"""

import math

import numpy as np
from scipy.cluster.vq import ClusterError, kmeans2, vq
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import rankdata

from i2i.images.format import Array
from i2i.metrics.precision_recall import nearest_neighbors

MIN_IN_CELL = 20            # Fakes, above which a cell counts.
KMEANS_STARTS = 10
ROWS = 8192                 # In memory at once.
FLD_RATE, FLD_EPOCHS, FLD_TOLERANCE = 0.5, 50, 5e-4
FLD_CENTER_SCALE = 0.81     # Of squared distances to the center of the training images.


def authentic(fake_distance: Array, fake_index: Array, train: Array) -> Array:
    """Which images lie farther from their nearest training image than that from its own nearest other one.

    Alaa et al. 2022 (arXiv 2102.08921), section 3.4.  -> (N,) bool

    Args:
        fake_distance, fake_index: distance to, and row of, the training image nearest to each, (N,).
        train: (M, D).  ValueError for one row.
    """
    if len(train) < 2:
        raise ValueError("authenticity needs 2 training images or more")
    rows, inverse = np.unique(fake_index, return_inverse=True)
    others, _ = nearest_neighbors(train[rows], train, exclude=rows)
    found: Array = fake_distance > others[inverse]
    return found


def mann_whitney_z(fake: Array, held_out: Array) -> float:
    """How much farther distances of fakes are than those of held-out images, as a z score (ties count half).

    Meehan et al. 2020 (arXiv 2004.05675), section 3, with the continuity correction of its authors.
    """
    n, m = len(fake), len(held_out)
    above = rankdata(np.concatenate([fake, held_out]))[:n].sum() - n * (n + 1) / 2
    return float((above - n * m / 2 + 0.5) / math.sqrt(n * m * (n + m + 1) / 12))


def copying_score(fake: Array, held_out: Array, fake_cells: Array,
                  held_out_cells: Array) -> tuple[float, float]:
    """C_T of Meehan et al. 2020, and its standard deviation where fakes are as far as held-out images.

    Args:
        fake, held_out: distances to the nearest training image of the same cell, (N,) and (M,).
        fake_cells, held_out_cells: the cells.

    Raises:
        ValueError: if no cell has enough of both.
    """
    scores, weights = [], []
    for cell in np.unique(held_out_cells):
        ours, theirs = fake[fake_cells == cell], held_out[held_out_cells == cell]
        if len(ours) > MIN_IN_CELL:
            scores.append(mann_whitney_z(ours, theirs))
            weights.append(len(theirs) / len(held_out))
    if not scores:
        raise ValueError(f"no cell has more than {MIN_IN_CELL} fakes; {6 * MIN_IN_CELL} in all would do")
    share = np.array(weights) / sum(weights)
    return float(share @ scores), float(np.sqrt((share**2).sum()))


def find_cells(train: Array, count: int, seed: int) -> Array:
    """The centers of k-means cells, the best of ten starts.  (N, D) -> (count, D); ValueError if too few."""
    train = np.asarray(train, np.float64)
    generator, best = np.random.default_rng(seed), (math.inf, train[:0])
    distinct = np.unique(train, axis=0) if len(train) < 100 else train
    if len(distinct) < count:
        raise ValueError(f"{len(distinct)} different training images do not make {count} cells")
    for _ in range(KMEANS_STARTS):
        start = distinct[generator.choice(len(distinct), count, replace=False)]
        try:
            centers, _ = kmeans2(train, start, minit="matrix", missing="raise", iter=30)
        except ClusterError:
            continue
        best = min(best, (float((vq(train, centers)[1]**2).sum()), centers), key=lambda each: each[0])
    if not len(best[1]):
        raise ValueError(f"the training images do not make {count} cells")
    return best[1]


def assign_cells(x: Array, centers: Array) -> Array:
    """The nearest center of each row.  (N, D), (K, D) -> (N,)"""
    found: Array = np.concatenate([vq(np.asarray(x[i:i + ROWS], np.float64), centers)[0]
                                   for i in range(0, len(x), ROWS)])
    return found


def nearest_in_cells(x: Array, x_cells: Array, train: Array, train_cells: Array) -> Array:
    """Distance of each row of x (N, D) to the nearest row of train (M, D) in its cell; infinity: none."""
    distance = np.full(len(x), np.inf)
    for cell in np.unique(x_cells):
        rows, columns = np.flatnonzero(x_cells == cell), np.flatnonzero(train_cells == cell)
        for i in range(0, len(columns), ROWS):
            found, _ = nearest_neighbors(x[rows], train[columns[i:i + ROWS]])
            distance[rows] = np.minimum(distance[rows], found)
    return distance


def feature_likelihoods(train: Array, held_out: Array, fake: Array) -> tuple[Array, Array]:
    """Negative log-likelihood per dimension of training and held-out images by a mixture around the fakes.

    A Gaussian at each fake, whose variances are fitted to the training images: where a fake repeats one, its
    variance collapses, and training images become likelier than held-out ones.  Jiralerspong et al. 2023
    (arXiv 2302.04440): features are standardized by the held-out images, and one more Gaussian at the center
    takes part in the fit only.  Compares all with all in memory.

    Args:
        train, held_out, fake: features, (N, D), (M, D) and (K, D).

    Returns:
        (N,) and (M,); 100 times the difference of their means is the gap, below 0 if images were memorized.
    """
    held_out = np.asarray(held_out, np.float64)
    mean, deviation = held_out.mean(0), held_out.std(0, ddof=1)
    used = deviation > 0
    if not used.any():
        raise ValueError("the held-out images are all alike")
    train, held_out, fake = ((np.asarray(each, np.float64)[:, used] - mean[used]) / deviation[used]
                             for each in (train, held_out, fake))
    squared = np.concatenate([cdist(train, fake, "sqeuclidean"), FLD_CENTER_SCALE * cdist(
        train, train.mean(0)[None], "sqeuclidean")], 1)
    dimensions = train.shape[1]
    log_variances = fit_variances(squared, dimensions)[0][:-1]

    def negative_likelihoods(distances: Array) -> Array:
        likelihoods: Array = logsumexp(_component_likelihoods(distances, log_variances, dimensions), axis=1)
        return -likelihoods / dimensions

    return negative_likelihoods(squared[:, :-1]), negative_likelihoods(cdist(held_out, fake, "sqeuclidean"))


def _component_likelihoods(squared: Array, log_variances: Array, dimensions: int,
                           log_weights: Array | None = None) -> Array:
    """log(weight x density) of each row in each Gaussian; by default all have the same weight."""
    constant = -dimensions / 2 * (log_variances + math.log(2 * math.pi))
    constant += -math.log(squared.shape[1]) if log_weights is None else log_weights
    found: Array = squared * (-0.5 / np.exp(log_variances))
    found += constant
    return found


def fit_variances(squared: Array, dimensions: int) -> tuple[Array, list[float]]:
    """Fit the log variances of Gaussians to squared distances (N, K + 1) by Adam (Kingma and Ba 2015).

    The last Gaussian has the weight of the K others together and starts at variance 1.

    Returns:
        (K + 1,), and the loss of each epoch.
    """
    count = squared.shape[1] - 1
    log_weights = np.append(np.full(count, -math.log(count)), 0.0)
    log_variances = np.append(np.log((squared[:, :-1].min(0) + 1e-3) / dimensions), 0.0)
    first, second = np.zeros(count + 1), np.zeros(count + 1)
    losses: list[float] = []
    for epoch in range(1, FLD_EPOCHS + 1):
        likelihoods = _component_likelihoods(squared, log_variances, dimensions, log_weights)
        total = logsumexp(likelihoods, axis=1)
        losses.append(float(-total.mean() / dimensions))
        likelihoods -= total[:, None]
        shares = np.exp(likelihoods, out=likelihoods)       # Of each Gaussian in each row.
        gradient = (shares.sum(0) * dimensions - np.einsum("ij,ij->j", shares, squared)
                    / np.exp(log_variances)) / (2 * len(squared) * dimensions)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        step = first / (1 - 0.9**epoch) / (np.sqrt(second / (1 - 0.999**epoch)) + 1e-8)
        log_variances = (log_variances - FLD_RATE * step).clip(-40, 40)
        if epoch > 6 and max(abs(losses[-1] - each) for each in losses[-5:]) < FLD_TOLERANCE:
            break
    return log_variances, losses
