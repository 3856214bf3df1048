"""Stacked MNIST: three gray pictures as the channels of one, a thousand modes told by a classifier of ten
classes that is trained here."""

from __future__ import annotations

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

from i2i.benchmarks.scoring import Score, score
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.runs import checkpoint
from i2i.seeding import seed_step

FASHION = Path("/usr/share/datasets/fashion-mnist")     # Where Debian's dataset-fashion-mnist puts it.
# Magic numbers of idx files: unsigned bytes in three dimensions, and in one.
IMAGES, LABELS = 0x803, 0x801
# By the CRC-32 of all training pictures; others go by that.
NAMES = {"f3639b56": "mnist", "ae65dccd": "fashion-mnist"}
CLASSES, CHANNELS = 10, 3
EPOCHS, BATCH, SEED = 3, 100, 0                         # Of the classifier.
AT_ONCE = 1000                                          # Pictures classified at once.


def read_idx(folder: Path, name: str, magic: int) -> NDArray[np.uint8]:
    """One idx file, plain or gzipped, under either of its usual names.  RequestError if it is not there or no
    such file."""
    spellings = [folder / (stem + end) for stem in (name, name.replace("-idx", ".idx"))
                 for end in ("", ".gz")]
    path = next((spelling for spelling in spellings if spelling.is_file()), None)
    if path is None:
        raise RequestError(f"{folder} has no {name} (.gz); accepted: a folder with the four idx files of "
                           "MNIST or Fashion-MNIST, whose Debian "
                           f"package is dataset-fashion-mnist (found by itself in {FASHION})")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        dimensions = data[3] if len(data) > 3 else 0
        shape = tuple(int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(dimensions))
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
        if int.from_bytes(data[:4], "big") != magic or values.size != np.prod(shape, dtype=np.int64):
            raise ValueError("its header and its length do not fit")
    except (OSError, EOFError, ValueError) as error:
        raise RequestError(f"{path} is no idx file of {'pictures' if magic == IMAGES else 'labels'}: {error}") from None
    return values.reshape(shape)


@dataclass(frozen=True)
class Digits:
    """Ten classes of gray pictures: training pictures to learn from, test pictures to tell the classifier's
    accuracy."""

    name: str
    train: Tensor       # N1HW in [-1, 1]
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def read_digits(folder: Path | None) -> Digits:
    """MNIST or Fashion-MNIST from a folder of idx files; by default Debian's.  RequestError in one line if
    there is none."""
    where = folder or FASHION
    if not where.is_dir():
        raise RequestError(f"stacked-mnist needs MNIST or Fashion-MNIST: {where} is no folder; accepted: "
                           "--mnist DIR with the four idx files, "
                           "or the Debian package dataset-fashion-mnist")
    parts = {}
    for split in ("train", "t10k"):
        pictures, labels = read_idx(where, f"{split}-images-idx3-ubyte", IMAGES), read_idx(where,
                                                                                           f"{split}-labels-idx1-ubyte", LABELS)
        if len(pictures) != len(labels) or len(labels) == 0 or labels.max() >= CLASSES:
            raise RequestError(f"{where} holds {len(pictures)} pictures and {len(labels)} labels of {split}; "
                               "accepted: as many of both, 0 to 9")
        if split == "train":
            crc = f"{zlib.crc32(pictures.tobytes()):08x}"
        parts[split] = torch.from_numpy(pictures[:,
                                                 None].astype(np.float32) / 127.5 - 1), torch.from_numpy(labels.astype(np.int64))
    return Digits(NAMES.get(crc, crc), *parts["train"], *parts["t10k"])


class Classifier(nn.Sequential):
    """Two strided convolutions and two linear layers: no more than telling ten classes needs."""

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = size[0] // 4, size[1] // 4
        super().__init__(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
                         nn.Flatten(),
                         nn.Linear(32 * height * width, 128), nn.ReLU(), nn.Dropout(0.3),
                         nn.Linear(128, CLASSES))

    @torch.no_grad()
    def classes(self, pictures: Tensor) -> Tensor:
        """N1HW in [-1, 1] -> N class indices"""
        self.eval()
        return torch.cat([self(some).argmax(1) for some in pictures.split(AT_ONCE)])


def train_classifier(digits: Digits) -> tuple[Classifier, float]:
    """A classifier, and its accuracy on the test pictures."""
    seed_step(SEED, 0, 0)
    network = Classifier(digits.train.shape[-2:])       # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    steps = EPOCHS * (len(digits.train) // BATCH or 1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    network.train()
    for step in range(steps):
        if step % max(1, steps // EPOCHS) == 0:
            order = torch.randperm(len(digits.train))
        some = order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
        F.cross_entropy(network(digits.train[some]), digits.train_labels[some]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return network, float((network.classes(digits.test) == digits.test_labels).double().mean())


def classifier(digits: Digits, path: Path) -> tuple[Classifier, float]:
    """The classifier kept at `path`, trained if it is not there or was for other pictures; its accuracy."""
    about = {"kind": "model", "recipe": "classifier of ten classes", "pictures": digits.name,
             "n": len(digits.train),
             "size": list(digits.train.shape[-2:])}
    if path.exists():
        tensors, header = checkpoint.load(path, "model")
        if all(header.get(key) == value for key, value in about.items()):
            network = Classifier(digits.train.shape[-2:])       # type: ignore[arg-type]
            network.load_state_dict(tensors)
            return network, header["accuracy"]
    network, accuracy = train_classifier(digits)
    checkpoint.save(path, network.state_dict(), {**about, "accuracy": accuracy})
    return network, accuracy


@dataclass(frozen=True)
class Stacked:
    """Three pictures drawn independently, each from all training pictures, as the channels of one; a mode is
    a triple of classes.

    Srivastava et al. 2017, section 4.1, after Metz et al. 2017, who draw while training as is done here; Lin
    et al. 2018 keep 128,000 triples.
    """

    digits: Digits
    network: Classifier
    accuracy: float
    modes: int = CLASSES**CHANNELS

    @property
    def pictures(self) -> str:
        """Which they are."""
        return self.digits.name

    @property
    def info(self) -> DataInfo:
        """What networks have to know."""
        height, width = self.digits.train.shape[-2:]
        return DataInfo((height, width), CHANNELS, CHANNELS)

    def batches(self, seed: int, batch: int) -> Iterator[Mapping[str, Tensor]]:
        """Stacked pictures without end.  -> {"b": N3HW}"""
        g = torch.Generator().manual_seed(seed)
        while True:
            yield {"b": self.digits.train[torch.randint(len(self.digits.train), (batch, CHANNELS),
                                                        generator=g), 0]}

    def judge(self, samples: Tensor) -> tuple[Score, list[int]]:
        """Its score and the samples of each mode; each channel is classified by itself.  N3HW -> score,
        counts"""
        classes = self.network.classes(samples.flatten(0, 1)[:, None]).unflatten(0, (-1, CHANNELS))
        mode = (classes * torch.tensor([CLASSES**i for i in range(CHANNELS)])).sum(1)
        counts = torch.bincount(mode, minlength=self.modes).numpy()
        return score(counts, None), counts.tolist()
