"""Are the large areas of colored drawings, such as hair and skin, of the right color?

Usage: python bench/region_colors.py STRIPS TRANSLATED [--areas 2] [--within 20]

STRIPS is a folder of A|B strips, TRANSLATED one of results with the same names.  An area is all pixels of B
that have one of its most frequent colors (8 levels apart), without the background (the color of the corner)
and lines (all channels under 48).  It is right if the mean color of the result in it differs from that of B
by at most so many levels in each channel.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image


def areas_of(target: np.ndarray, count: int) -> list[np.ndarray]:
    """Masks (H, W) of the most frequent colors of an image (H, W, 3) uint8, the largest first."""
    bins = (target // 8).astype(np.int64) @ (1, 32, 1024)
    drawn = (bins != bins[0, 0]) & (target.max(2) >= 48)
    colors, sizes = np.unique(bins[drawn], return_counts=True)
    return [(bins == color) & drawn for color in colors[np.argsort(-sizes)][:count]]


def main() -> None:
    """Print the share of drawings whose areas are right, by area and for all of them."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strips", type=Path)
    parser.add_argument("translated", type=Path)
    parser.add_argument("--areas", type=int, default=2)
    parser.add_argument("--within", type=float, default=20)
    args = parser.parse_args()
    right, wrong = [], []
    for path in sorted(args.strips.iterdir()):
        strip = np.asarray(Image.open(path).convert("RGB"))
        target = strip[:, strip.shape[1] // 2:]
        result = np.asarray(Image.open(args.translated / path.name).convert("RGB"), dtype=float)
        errors = [abs(result[area].mean(0) - target[area].mean(0)).max()
                  for area in areas_of(target, args.areas)]
        right.append([error <= args.within for error in errors])
        if not all(right[-1]):
            wrong.append(f"{path.name} ({', '.join(f'{error:.0f}' for error in errors)})")
    for i, share in enumerate(np.mean(right, axis=0)):
        print(f"area {i + 1}: {share:.1%} of {len(right)} drawings within {args.within:g} levels")
    print(f"all: {np.mean(np.all(right, axis=1)):.1%}; not: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
