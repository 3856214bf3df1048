r"""Does a conditional generator make what it is asked for?  A classifier that learnt from real images alone names the class of generated ones.

    i2i train sngan conditional=true generator.condition=batchnorm discriminator.condition=projection generator.up=resize generator.width=32 \
        discriminator.width=32 augment=diffaugment augment.policy=translation data.size=32 train.images=156k --out runs/labels
    python bench/conditional.py runs/labels --data fluent3d-64 --n 1600

The classifier is linear, on the features of EfficientNet-Lite0, trained on four fifths of the real images at the size of the generated ones; that on
the last fifth stands beside.  Images are asked for in equal numbers, so chance is one of the number of classes, whatever a generator makes.
"""

from __future__ import annotations

import argparse

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


def learn(features: Tensor, labels: Tensor, classes: int, *, steps: int = 400, decay: float = 1e-2) -> Tensor:
    """Softmax regression by full-batch Adam.  N x D -> (D + 1) x classes"""
    weights = torch.zeros(features.shape[1] + 1, classes, requires_grad=True)
    optimiser = torch.optim.AdamW([weights], 1e-2, weight_decay=decay)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(with_one(features) @ weights, labels).backward()
        optimiser.step()
    return weights.detach()


def with_one(features: Tensor) -> Tensor:
    return F.pad(features, (0, 1), value=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="run folders or model files, of one size")
    parser.add_argument("--data", default="fluent3d-64")
    parser.add_argument("--n", type=int, default=1600)
    options = parser.parse_args()
    models, extractor = [load(path) for path in options.models], efficientnet_lite0()
    sizes = {tuple(model.header["info"]["size"]) for model in models}
    if len(sizes) > 1:
        raise SystemExit(f"the models make images of {len(sizes)} sizes; accepted: models of one size, as the classifier learns at theirs")
    real = find_images(open_source(options.data))["train"]
    for path, model in zip(options.models, models, strict=True):
        if list(real.classes) != list(model.classes):
            raise SystemExit(f"the classes of {path} {model.classes} are not those of the data {real.classes}")
    labels, size = torch.as_tensor(np.array(real.labels)), sizes.pop()
    features, _ = extractor.images([fit(real[i][0].array, size) for i in range(len(real))])
    mean, std = features.mean(0), features.std(0) + 1e-6
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    learnt, held = order[: len(order) * 4 // 5], order[len(order) * 4 // 5:]
    weights = learn((features[learnt] - mean) / std, labels[learnt], len(real.classes))

    def accuracy(features: Tensor, labels: Tensor) -> float:
        return float(((with_one((features - mean) / std) @ weights).argmax(1) == labels).float().mean())

    print(f"{len(real.classes)} classes, chance {1 / len(real.classes):.1%}")
    print(f"held-out real images   {accuracy(features[held], labels[held]):.1%} of {len(held)}")
    asked = torch.arange(options.n) % len(real.classes)
    for path, model in zip(options.models, models, strict=True):
        made, _ = extractor.images([to_array(image, model.kinds["b"]) for image in model.generate(options.n, labels=asked)])
        print(f"{path}: generated images {accuracy(made, asked):.1%} of {options.n}")
        for number, name in enumerate(real.classes):
            print(f"  {name:20} {accuracy(made[asked == number], asked[asked == number]):.1%}")


if __name__ == "__main__":
    main()
