"""Time the FID Inception as the evaluator runs it against the plain network, NCHW and not folded.

Weights are random: time does not depend on them.  Both run on the same prepared images, in turn, in one
process, and the ratio is taken pair by pair, so that a machine whose speed drifts does not decide it.  Their
features are compared.

    python bench/inception.py                     batch 16
    python bench/inception.py --batch 32 --rounds 10
    python bench/inception.py --compile           also through torch.compile (needs a C++ compiler)
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import time

import torch

from i2i.metrics.feature_networks import FeatureExtractor
from i2i.metrics.networks.inception import Inception
from i2i.metrics.networks.inception_v3 import FIDInception


def randomize(network):
    """Random weights that keep features of order one: He's, and batch norms that are not the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1, 0.1)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 1, 1.2)
    return network.eval().requires_grad_(False)


def main():
    """Print images per second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    plain = randomize(FIDInception())
    ours = FeatureExtractor("inception", "random", "clean", Inception.size, Inception.num_features,
                            copy.deepcopy(plain).folded())
    images = torch.rand(options.batch, 3, Inception.size, Inception.size) * 2 - 1
    times = [], []
    with torch.inference_mode():
        for i in range(options.rounds + 1):
            start = time.perf_counter()
            a = ours(images)[0]
            middle = time.perf_counter()
            b = plain(images)[0]
            end = time.perf_counter()
            if i:       # The first calls choose kernels.
                times[0].append(middle - start)
                times[1].append(end - middle)
    ratios = [p / o for o, p in zip(*times, strict=True)]
    speed = [options.batch / statistics.median(each) for each in times]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}, "
          f"{options.rounds} pairs")
    print(f"ours {speed[0]:.1f} images/s, plain {speed[1]:.1f}, ratio {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} … {max(ratios):.2f})")
    print(f"largest difference of features {float((a - b).abs().max()):.1e}, of features up to "
          f"{float(b.abs().max()):.1f}")
    if options.compile:
        compiled = dataclasses.replace(ours, network=torch.compile(ours.network))
        start = time.perf_counter()
        compiled(images)
        first = time.perf_counter() - start
        each = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            compiled(images)
            middle = time.perf_counter()
            ours(images)
            each.append((time.perf_counter() - middle) / (middle - start))
        print(f"compiled: {statistics.median(each):.2f} times the speed of ours, "
              f"after {first:.0f} s, in which ours does {first * speed[0]:.0f} images")


if __name__ == "__main__":
    main()
