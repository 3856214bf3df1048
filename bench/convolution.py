"""Where one matrix product beats the CPU's convolution kernels: forward and backward of 4-wide convolutions
of stride 2, by positions.

    python bench/convolution.py
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from i2i.nets import blocks


def median_ms(layer, x, rounds=15):
    """Forward and backward, median milliseconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        layer(x).sum().backward()
        times.append(time.perf_counter() - start)
        layer.zero_grad(set_to_none=True)
        x.grad = None
    return statistics.median(times) * 1e3


def main():
    """Print one row for each shape."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; used below "
          f"{blocks.MAX_GEMM_POSITIONS} positions")
    print(f"{'layer':<12}{'channels':>12}{'positions':>10}{'matrix ms':>11}{'kernel ms':>11}{'ratio':>7}")
    few = blocks.MAX_GEMM_POSITIONS
    for made, base, name in ((blocks.GemmConv2d, nn.Conv2d, "convolution"),
                             (blocks.GemmConvTranspose2d, nn.ConvTranspose2d, "transposed")):
        for channels, out in ((128, 128), (256, 256), (512, 512)):
            for batch, side in ((1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (1, 16)):
                inner = 2 * side if name == "convolution" else side
                x = torch.randn(batch, channels, inner, inner, requires_grad=True)
                blocks.MAX_GEMM_POSITIONS = 10**9
                matrix = median_ms(made(channels, out, 4, 2, 1, bias=False), x)
                blocks.MAX_GEMM_POSITIONS = few
                kernel = median_ms(base(channels, out, 4, 2, 1, bias=False), x)
                row = f"{name:<12}{f'{channels} -> {out}':>12}{batch * side * side:>10}"
                print(f"{row}{matrix:>11.2f}{kernel:>11.2f}{matrix / kernel:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
