"""Stacked MNIST: three gray images as the channels of one, a thousand modes for a classifier of each."""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.benchmarks.scores import Score, score_counts
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.runs import checkpoint
from i2i.seeding import seed_step

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")   # Installed by Debian's dataset-fashion-mnist.
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801                   # idx files of bytes in 3 and 1 dimensions.
NAMES = {"f3639b56": "mnist", "ae65dccd": "fashion-mnist"}  # By CRC-32 of the training images.
CLASSES, CHANNELS = 10, 3
CLASSIFIER_EPOCHS, CLASSIFIER_BATCH, CLASSIFIER_SEED = 3, 100, 0
INFERENCE_BATCH = 1000


def read_idx(folder: Path, name: str, magic: int) -> NDArray[np.uint8]:
    """Read an idx file NAME-idx… or NAME.idx…, plain or gzipped.  RequestError if missing or malformed."""
    candidates = [folder / (stem + suffix) for stem in (name, name.replace("-idx", ".idx"))
                  for suffix in ("", ".gz")]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise RequestError(f"{folder} has no {name} (.gz); accepted: a folder with the four idx files of "
                           f"MNIST or Fashion-MNIST, such as {FASHION_MNIST} (dataset-fashion-mnist)")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        dimensions = data[3] if len(data) > 3 else 0
        shape = tuple(int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(dimensions))
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
        if int.from_bytes(data[:4], "big") != magic or values.size != np.prod(shape, dtype=np.int64):
            raise ValueError("header and length do not match")
    except (OSError, EOFError, ValueError) as error:
        content = "images" if magic == IMAGES_MAGIC else "labels"
        raise RequestError(f"{path} is not an idx file of {content}: {error}") from None
    return values.reshape(shape)


@dataclass(frozen=True)
class Digits:
    """MNIST or the like: training images to learn from, test images to measure the classifier's accuracy."""

    name: str
    train: Tensor           # (N, 1, H, W) in [-1, 1]
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def read_digits(folder: Path | None) -> Digits:
    """Read four idx files; by default Debian's Fashion-MNIST.  RequestError if missing or malformed."""
    folder = folder or FASHION_MNIST
    if not folder.is_dir():
        raise RequestError(f"stacked-mnist needs MNIST or Fashion-MNIST: {folder} is not a folder; "
                           "accepted: --mnist DIR with the four idx files, or Debian's dataset-fashion-mnist")
    tensors: list[Tensor] = []
    crc = ""
    for split in ("train", "t10k"):
        images = read_idx(folder, f"{split}-images-idx3-ubyte", IMAGES_MAGIC)
        labels = read_idx(folder, f"{split}-labels-idx1-ubyte", LABELS_MAGIC)
        if len(images) != len(labels) or len(labels) == 0 or labels.max() >= CLASSES:
            raise RequestError(f"{folder} has {len(images)} images and {len(labels)} labels of {split}; "
                               "accepted: equally many, with labels 0 to 9")
        crc = crc or f"{zlib.crc32(images.tobytes()):08x}"
        tensors += [torch.from_numpy(images[:, None].astype(np.float32) / 127.5 - 1),
                    torch.from_numpy(labels.astype(np.int64))]
    return Digits(NAMES.get(crc, crc), *tensors)


class Classifier(nn.Sequential):
    """A small convolutional network for gray images of ten classes."""

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = size[0] // 4, size[1] // 4
        super().__init__(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
                         nn.Flatten(), nn.Linear(32 * height * width, 128), nn.ReLU(), nn.Dropout(0.3),
                         nn.Linear(128, CLASSES))

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """Class indices `(N,)` of images `(N, 1, H, W)` in [-1, 1]."""
        self.eval()
        return torch.cat([self(chunk).argmax(1) for chunk in images.split(INFERENCE_BATCH)])


def train_classifier(digits: Digits, epochs: int) -> tuple[Classifier, float]:
    """A classifier, and its accuracy on the test images."""
    seed_step(CLASSIFIER_SEED, 0, 0)
    network = Classifier((digits.train.shape[-2], digits.train.shape[-1]))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    steps = epochs * (len(digits.train) // CLASSIFIER_BATCH or 1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    network.train()
    for step in range(steps):
        if step % max(1, steps // epochs) == 0:
            order = torch.randperm(len(digits.train))
        batch = order[torch.arange(step * CLASSIFIER_BATCH, (step + 1) * CLASSIFIER_BATCH) % len(order)]
        F.cross_entropy(network(digits.train[batch]), digits.train_labels[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return network, float((network.classify(digits.test) == digits.test_labels).double().mean())


def load_classifier(digits: Digits, path: Path, epochs: int = CLASSIFIER_EPOCHS) -> tuple[Classifier, float]:
    """The classifier stored at `path`, and its accuracy; trained first if missing or for other images."""
    size = digits.train.shape[-2], digits.train.shape[-1]
    identity = {"kind": "model", "recipe": "classifier of ten classes", "images": digits.name,
                "n": len(digits.train), "size": list(size)}
    if path.exists():
        tensors, header = checkpoint.load(path, "model")
        if all(header.get(key) == value for key, value in identity.items()):
            network = Classifier(size)
            network.load_state_dict(tensors)
            return network, header["accuracy"]
    network, accuracy = train_classifier(digits, epochs)
    checkpoint.save(path, network.state_dict(), {**identity, "accuracy": accuracy})
    return network, accuracy


@dataclass(frozen=True)
class StackedMNIST:
    """Three training images drawn independently, as the channels of one; a mode is a triple of classes.

    Srivastava et al. 2017, section 4.1, after Metz et al. 2017; Lin et al. 2018 draw 128,000 triples once.
    """

    digits: Digits
    network: Classifier
    accuracy: float
    modes: int = CLASSES**CHANNELS

    @property
    def images(self) -> str:
        return self.digits.name

    @property
    def info(self) -> DataInfo:
        return DataInfo((self.digits.train.shape[-2], self.digits.train.shape[-1]), CHANNELS, CHANNELS)

    def batches(self, seed: int, batch_size: int) -> Iterator[Mapping[str, Tensor]]:
        """Endless batches.  -> {"b": (N, 3, H, W)}"""
        g = torch.Generator().manual_seed(seed)
        while True:
            index = torch.randint(len(self.digits.train), (batch_size, CHANNELS), generator=g)
            yield {"b": self.digits.train[index, 0]}

    def score(self, samples: Tensor) -> tuple[Score, list[int]]:
        """Score of samples `(N, 3, H, W)`, and the number of each mode; each channel is classified."""
        classes = self.network.classify(samples.flatten(0, 1)[:, None]).unflatten(0, (-1, CHANNELS))
        mode = (classes * torch.tensor([CLASSES**i for i in range(CHANNELS)])).sum(1)
        counts = torch.bincount(mode, minlength=self.modes).numpy()
        return score_counts(counts, None), counts.tolist()
