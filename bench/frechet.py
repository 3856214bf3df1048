"""Time the Fréchet distance from features against covariances and scipy.linalg.sqrtm of their product.

    python bench/frechet.py                      2048 dimensions; 500 and 5000 images (three minutes)
    python bench/frechet.py --n 500
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import scipy
from scipy import linalg

from i2i.metrics.frechet import frechet_from_features


def sqrtm_distance(x, y):
    """Heusel et al. 2017, equation 6, term by term."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(a @ b)
    step = x.mean(0) - y.mean(0)
    return float((step @ step + np.trace(a) + np.trace(b) - 2 * np.trace(root)).real)


def random_features(n, d, seed):
    """Non-negative, skewed and correlated features (n, d), with a spectrum that falls like that of pool3."""
    g = np.random.default_rng(seed)
    scale = np.arange(1, d + 1, dtype=np.float32) ** -0.5
    mix = g.standard_normal((d, d)).astype(np.float32) * scale[:, None]
    return np.maximum(g.standard_normal((n, d)).astype(np.float32) @ mix * 0.1 + 0.3 + 0.02 * seed, 0)


def main():
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--d", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, {options.d} dimensions, best of "
          f"{options.rounds} (sqrtm once)")
    print(f"{'n':>6}{'ours s':>10}{'sqrtm s':>10}{'ratio':>8}{'ours':>14}{'sqrtm':>14}")
    for n in options.n:
        x, y = random_features(n, options.d, 0), random_features(n, options.d, 1)
        times = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            value = frechet_from_features(x, y)
            times.append(time.perf_counter() - start)
        start = time.perf_counter()
        other = sqrtm_distance(x, y)
        theirs = time.perf_counter() - start
        best = min(times)
        print(f"{n:>6}{best:>10.3f}{theirs:>10.2f}{theirs / best:>8.1f}{value:>14.6f}{other:>14.6f}")


if __name__ == "__main__":
    main()
