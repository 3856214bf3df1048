"""Stacked MNIST: files, classifier, the thousand modes."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from i2i.benchmarks import stacked_mnist
from i2i.errors import RequestError


def bars(n: int) -> tuple[np.ndarray, np.ndarray]:
    """8x8 images whose class is the position of a bright bar."""
    labels = np.arange(n) % 10
    pictures = np.random.default_rng(n).integers(0, 60, (n, 8, 8), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        if label < 5:
            picture[label + 1] = 255
        else:
            picture[:, label - 4] = 255
    return pictures, labels.astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape) + values.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The four files, two gzipped and one under the other usual name."""
    where = tmp_path / "mnist"
    where.mkdir()
    for split, n in (("train", 2000), ("t10k", 200)):
        pictures, labels = bars(n)
        (where / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
        (where / f"{split}-labels{'.' if split == 'train' else '-'}idx1-ubyte").write_bytes(idx(labels))
    return where


def test_idx_files_are_read_exactly(folder: Path) -> None:
    digits = stacked_mnist.read_digits(folder)
    pictures, labels = bars(200)
    assert digits.name == f"{zlib.crc32(bars(2000)[0].tobytes()):08x}"        # Neither MNIST nor Fashion-MNIST, whatever the folder is called.
    assert torch.equal(((digits.test[:, 0] + 1) * 127.5).round().to(torch.uint8), torch.from_numpy(pictures))
    assert digits.test_labels.tolist() == labels.tolist()
    assert digits.train.min() >= -1
    assert digits.train.max() == 1


def test_missing_or_malformed_files_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="stacked-mnist needs MNIST or Fashion-MNIST"):
        stacked_mnist.read_digits(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="has no train-images-idx3-ubyte"):
        stacked_mnist.read_digits(tmp_path)
    for name, content in (("t10k-labels-idx1-ubyte", b"no"), ("t10k-images-idx3-ubyte.gz", b"\x1f\x8bno"), ("t10k-labels-idx1-ubyte", idx(np.zeros(3, np.uint8)))):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(RequestError, match="is not an idx file|images and 3 labels"):
            stacked_mnist.read_digits(folder)
        (folder / name).write_bytes(whole)


def test_the_classifier_recognizes_modes_and_is_stored(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = stacked_mnist.read_digits(folder)
    network, accuracy = stacked_mnist.load_classifier(digits, tmp_path / "c.safetensors", epochs=8)
    assert accuracy > 0.95, accuracy
    monkeypatch.setattr(stacked_mnist, "train_classifier", lambda digits, epochs: pytest.fail("trained twice"))
    again, same = stacked_mnist.load_classifier(digits, tmp_path / "c.safetensors")
    assert same == accuracy
    assert torch.equal(again.classify(digits.test), network.classify(digits.test))

    target = stacked_mnist.StackedMNIST(digits, network, accuracy)
    real = next(target.batches(0, 20_000))["b"]
    assert real.shape == (20_000, 3, 8, 8)
    found, _ = target.score(real)
    assert found.modes == 1000
    assert found.high_quality is None
    assert found.reverse_kl < 0.05
    one = digits.test[torch.tensor([4, 0, 7])].transpose(0, 1).expand(50, 3, 8, 8)      # Classes 4, 0 and 7, in this order.
    assert target.score(one)[1].index(50) == 4 + 0 * 10 + 7 * 100
