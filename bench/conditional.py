"""Does a conditional generator make what it is asked for?  Classifiers that learnt from real images alone name the class of generated ones.

    i2i train cgan adversarial=hinge d_parametrisation=spectral discriminator.norm=none generator.up=resize generator.width=32 \
        discriminator.width=32 augment=diffaugment augment.policy=translation data.size=32 train.images=40k --out runs/cgan
    python bench/conditional.py runs/cgan --data fluent3d-64 --n 1600

Two of them, trained on four fifths of the real images at the size of the generated ones, their accuracy on the last fifth beside: kernel regression
on colours of 8x8 cells, which a short training can get right, and softmax regression on the features of EfficientNet-Lite0, which ask for objects.
Images are asked for in equal numbers, so chance is one of the number of classes, whatever a generator makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i import load
from i2i.data.files import open_source
from i2i.data.labelled import find_images
from i2i.data.transforms import fit
from i2i.images import to_array
from i2i.metrics.features import efficientnet_lite0

Classifier = Callable[[Tensor], Tensor]         # N x D -> N class indices
CELLS = 8


def softmax_regression(features: Tensor, labels: Tensor, classes: int, *, steps: int = 400, decay: float = 1e-2) -> Classifier:
    """By full-batch Adam, on standardised features."""
    mean, std = features.mean(0), features.std(0) + 1e-6

    def scaled(x: Tensor) -> Tensor:
        return F.pad((x - mean) / std, (0, 1), value=1.0)

    weights = torch.zeros(features.shape[1] + 1, classes, requires_grad=True)
    optimiser = torch.optim.AdamW([weights], 1e-2, weight_decay=decay)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(scaled(features) @ weights, labels).backward()
        optimiser.step()
    return lambda x: (scaled(x) @ weights.detach()).argmax(1)


def kernel_regression(features: Tensor, labels: Tensor, classes: int, *, gamma: float = 0.05, ridge: float = 0.1) -> Classifier:
    """Regularised least squares on one-hot labels with the kernel exp(-gamma d^2)."""
    def kernel(x: Tensor) -> Tensor:
        return torch.exp(-gamma * torch.cdist(x, features) ** 2)

    weights = torch.linalg.solve(kernel(features) + ridge * torch.eye(len(features)), F.one_hot(labels, classes) - 1 / classes)
    return lambda x: (kernel(x) @ weights).argmax(1)


def colours(arrays: list[np.ndarray]) -> Tensor:
    """HWC uint8 -> N x 3 * CELLS^2 in [-1, 1]"""
    images = torch.from_numpy(np.stack(arrays)[..., :3]).permute(0, 3, 1, 2) / 127.5 - 1
    return F.adaptive_avg_pool2d(images, CELLS).flatten(1)


def objects(arrays: list[np.ndarray]) -> Tensor:
    """HWC uint8 -> N x 1280"""
    return efficientnet_lite0().images(arrays)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", default="fluent3d-64")
    parser.add_argument("--n", type=int, default=1600)
    options = parser.parse_args()
    model, real = load(options.model), find_images(open_source(options.data))["train"]
    if list(real.classes) != list(model.classes):
        raise SystemExit(f"the model's classes {model.classes} are not those of the data {real.classes}")
    labels, count = torch.as_tensor(np.array(real.labels)), len(real.classes)
    pictures = [fit(real[i][0].array, tuple(model.header["info"]["size"])) for i in range(len(real))]
    asked = torch.arange(options.n) % count
    made = [to_array(image, model.kinds["b"]) for image in model.generate(options.n, labels=asked)]
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    learnt, held = order[: len(order) * 4 // 5], order[len(order) * 4 // 5:]
    print(f"{count} classes, chance {1 / count:.1%}")
    for name, describe, learn in (("colours of 8x8 cells", colours, kernel_regression), ("EfficientNet-Lite0", objects, softmax_regression)):
        seen = describe(pictures)
        classify = learn(seen[learnt], labels[learnt], count)
        right = classify(describe(made)) == asked
        print(f"{name}: held-out real images {(classify(seen[held]) == labels[held]).float().mean():.1%} of {len(held)}, "
              f"generated ones {right.float().mean():.1%} of {len(made)}")
        print("    " + "  ".join(f"{word} {right[asked == number].float().mean():.0%}" for number, word in enumerate(real.classes)))


if __name__ == "__main__":
    main()
