"""Does a conditional generator make what it is asked for?  Classifiers that learned from real images alone
name the class of generated ones.

    python bench/conditional.py --fashion fashion.zip           # Fashion-MNIST from Debian's
dataset-fashion-mnist as class folders
    i2i train sngan conditional=true generator.condition=batchnorm discriminator.condition=projection --data
fashion.zip generator.width=32 \
        discriminator.width=32 g_optimizer.lr=4e-4 d_optimizer.lr=4e-4 train.ema_half_life=2k
train.images=150k --out runs/fashion
    python bench/conditional.py runs/fashion --data fashion.zip --sheet fashion.png

Two of them, trained on real images at the size of the generated ones, with their accuracy on others beside
(the set's own test images, else one fifth): a small convolutional network on the pixels, from scratch, and
softmax regression on the features of EfficientNet-Lite0, which ask for objects.  Images are asked for in
equal numbers, so chance is one of the number of classes, whatever a generator makes.  One picture a class
would be told as well as many, so the spread within a class stands beside: the mean distance of two generated
images of a class over that of two real ones.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from i2i import load
from i2i.benchmarks.stacked_mnist import read_digits
from i2i.data.labeled import ImageDataset, find_images
from i2i.data.sources import open_source
from i2i.data.transforms import resize
from i2i.images.convert import to_8bit, to_array, to_rgb
from i2i.metrics.feature_networks import load_extractor

Arrays = Sequence[np.ndarray]
Classifier = Callable[[Tensor], Tensor]         # What describes images -> N class indices
# Xiao et al. 2017, table 2.
GARMENTS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
            "ankle-boot")
LEARNED, HELD = 10_000, 2_000                    # Real images at most.
EPOCHS, BATCH, SHIFT = 20, 64, 2


def write_fashion(file: Path) -> None:
    """The idx files as class folders of PNGs in a zip."""
    digits = read_digits(None)
    with zipfile.ZipFile(file, "w") as out:
        for split, images, labels in (("train", digits.train, digits.train_labels),
                                      ("test", digits.test, digits.test_labels)):
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                png = io.BytesIO()
                Image.fromarray((image[0] * 127.5 + 127.5).round().to(torch.uint8).numpy()).save(png, "png")
                out.writestr(f"{split}/{GARMENTS[label]}/{i:05d}.png", png.getvalue())


def softmax_regression(features: Tensor, labels: Tensor, classes: int, *, steps: int = 400,
                       decay: float = 1e-2) -> Classifier:
    """By full-batch Adam, on standardized features."""
    mean, std = features.mean(0), features.std(0) + 1e-6

    def scaled(x: Tensor) -> Tensor:
        return F.pad((x - mean) / std, (0, 1), value=1.0)

    weights = torch.zeros(features.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.AdamW([weights], 1e-2, weight_decay=decay)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(scaled(features) @ weights, labels).backward()
        optimizer.step()
    return lambda x: (scaled(x) @ weights.detach()).argmax(1)


def convolutional(images: Tensor, labels: Tensor, classes: int) -> Classifier:
    """Three strided convolutions and a mean over places, on images shifted by up to SHIFT pixels and
    mirrored."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for into, out in zip((images.shape[1], 32, 64), (32, 64, 128), strict=True):
        layers += [nn.Conv2d(into, out, 3, 1, 1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3),
                            nn.Linear(128, classes))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(steps):
        some = torch.randint(len(images), (BATCH,))
        dy, dx = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
        x = images[some].roll((dy, dx), (2, 3))
        x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, x.flip(3), x)
        optimizer.zero_grad()
        F.cross_entropy(network(x), labels[some]).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        return lambda x: torch.cat([network(part).argmax(1) for part in x.split(500)])


def pixels(arrays: Arrays) -> Tensor:
    """HWC uint8 -> NCHW in [-1, 1]"""
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def objects(arrays: Arrays) -> Tensor:
    """HWC uint8 -> N x 1280"""
    return load_extractor("efficientnet-lite0").extract([to_rgb(array) for array in arrays])[0]


def spread(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean Euclidean distance of two images of each class.  NCHW, N -> classes"""
    out = []
    for number in range(classes):
        some = images[labels == number].flatten(1)[:200]
        out.append(torch.pdist(some).mean())
    return torch.stack(out)


def read(images: ImageDataset, places: Tensor, size: tuple[int, int]) -> tuple[Arrays, Tensor]:
    """Pictures on white, at the size, and their labels."""
    return [np.atleast_3d(resize(to_8bit(images[i][0]), size))
            for i in places.tolist()], torch.as_tensor(np.array(images.labels))[places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--data", default="fluent3d-64")
    parser.add_argument("--n", type=int, default=1600)
    parser.add_argument("--sheet", type=Path, help="where to put a picture of ten images a class")
    parser.add_argument("--fashion", type=Path, help="write Fashion-MNIST to this zip and end")
    options = parser.parse_args()
    if options.fashion:
        return write_fashion(options.fashion)
    model, sets = load(options.model), find_images(open_source(options.data))
    real = sets["train"]
    if list(real.classes) != list(model.classes):
        raise SystemExit(f"the model's classes {model.classes} are not those of the data {real.classes}")
    count, size = len(real.classes), tuple(model.header["info"]["size"])
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    if "test" in sets:
        others = torch.randperm(len(sets["test"]), generator=torch.Generator().manual_seed(0))
        (seen, labels), (held, truth) = read(real, order[:LEARNED], size), read(sets["test"], others[:HELD],
                                                                                size)
    else:
        fifth = len(real) // 5
        (seen, labels), (held, truth) = read(real, order[fifth:][:LEARNED], size), read(real,
                                                                                        order[:fifth][:HELD],
                                                                                        size)
    asked = torch.arange(options.n) % count
    made = [np.atleast_3d(to_array(image, model.formats["b"]))
            for image in model.generate(options.n, labels=asked)]
    if options.sheet:
        rows = [np.concatenate([made[i] for i in range(number, options.n, count)][:10], 1)
                for number in range(count)]
        Image.fromarray(np.concatenate(rows, 0).squeeze()).save(options.sheet)
    print(f"{count} classes, chance {1 / count:.1%}; spread within a class over that of real images: "
          f"{(spread(pixels(made), asked, count) / spread(pixels(held), truth, count)).mean():.2f}")
    for name, describe, learn, most in (("convolutional network", pixels, convolutional, LEARNED),
                                        ("EfficientNet-Lite0", objects, softmax_regression, 2000)):
        classify = learn(describe(seen[:most]), labels[:most], count)
        right = classify(describe(made)) == asked
        print(f"{name}: held-out real images {(classify(describe(held)) == truth).float().mean():.1%} of "
              f"{len(held)}, "
              f"generated ones {right.float().mean():.1%} of {len(made)}")
        print("    "
              + "  ".join(f"{word} {right[asked == number].float().mean():.0%}" for number,
                          word in enumerate(real.classes)))


if __name__ == "__main__":
    main()
