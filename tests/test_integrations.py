"""Models in people's own training code: the transform, and sets that mix real and generated images."""

import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2 as transforms

import i2i as package
from i2i import Mixed, Translate, load
from i2i.errors import RequestError
from i2i.images.convert import to_array
from i2i.images.format import ImageFormat
from tests.conftest import CLASSES, Run, drawing

Noisy = dict[str, Path]


class Drawings(Dataset):
    """Ten pictures that say which they are, as one of several types, with labels if asked for."""

    def __init__(self, kind: str = "array", labeled: bool = True) -> None:
        self.kind, self.labeled = kind, labeled
        if labeled:
            self.classes = list(CLASSES)

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> object:
        array = np.full((32, 32, 3), 10 * index, np.uint8)
        image = {"array": lambda: array, "gray": lambda: array[..., 0], "picture": lambda: Image.fromarray(array), "float": lambda: torch.zeros(3, 32, 32),
                 "tensor": lambda: torch.from_numpy(array).permute(2, 0, 1)}[self.kind]()
        return (image, index % 3) if self.labeled else image


# ---------------------------------------------------------------------------------------------- the transform

def test_it_translates_in_a_pipeline(trained: Path) -> None:
    image, model = drawing(3)[:, :32], load(trained, device="cpu")
    made = A.Compose([Translate(trained, p=1), A.HorizontalFlip(p=1)])(image=image)["image"]
    assert np.array_equal(made[:, ::-1], model.translate(image))
    assert np.array_equal(A.Compose([Translate(trained, p=0)])(image=image)["image"], image)
    mask = image[..., 0]
    both = A.Compose([Translate(trained, p=1)])(image=image, mask=mask)
    assert np.array_equal(both["mask"], mask)
    some = A.Compose([Translate(trained, p=0.5)], seed=1)
    count = sum(not np.array_equal(some(image=image)["image"], image) for _ in range(40))
    assert 10 <= count <= 30


@pytest.mark.parametrize("shape", [(32, 32, 3), (17, 40, 3), (20, 33), (20, 33, 1), (1, 1, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_size_type_and_channels_stay(trained: Path, shape: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    image = {"uint8": values, "uint16": values.astype(np.uint16) * 257, "float32": (values / 255).astype(np.float32)}[dtype]
    transform = Translate(trained, p=1)
    made = transform(image=image)["image"]
    assert (made.shape, made.dtype) == (shape, np.dtype(dtype))
    levels = made / {"uint8": 1, "uint16": 257, "float32": 1 / 255}[dtype]
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert np.abs(levels - transform(image=values)["image"]).max() <= 1     # The same picture in whatever type.


def test_a_copy_takes_no_weights_and_translates_alike(trained: Path) -> None:
    transform, image = Translate(trained, p=1), drawing(3)[:, :32]
    made = transform(image=image)["image"]
    data = pickle.dumps(transform)
    assert len(data) < 10_000
    assert np.array_equal(pickle.loads(data)(image=image)["image"], made)
    saved = A.to_dict(A.Compose([transform]))
    assert saved["transform"]["transforms"][0]["model"] == str(trained)
    assert np.array_equal(A.from_dict(saved)(image=image)["image"], made)


def test_it_works_in_loader_processes(trained: Path) -> None:
    class Translated(Dataset):
        pipeline = A.Compose([Translate(trained, p=1)])

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> np.ndarray:
            return self.pipeline(image=drawing(index)[:, :32])["image"]

    model = load(trained, device="cpu")
    for batch, first in zip(DataLoader(Translated(), 2, num_workers=2), (0, 2), strict=True):
        for i in range(2):
            assert np.array_equal(batch[i].numpy(), model.translate(drawing(first + i)[:, :32]))


def test_what_the_transform_refuses(trained: Path, noisy: Noisy) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for args, expected in ((("nothing",), "nothing does not exist"), ((trained, "ba"), "direction ba"), ((noisy["plain"],), "from noise"),
                            ((trained, "ab", "tpu"), "tpu")):
        with pytest.raises(RequestError, match=expected):
            Translate(*args, p=1)(image=image)
    with pytest.raises(RequestError, match="int32"):
        Translate(trained, p=1).apply(image.astype(np.int32))
    with pytest.raises(RequestError, match="4 channels"):
        Translate(trained, p=1)(image=np.zeros((8, 8, 4), np.uint8))


# ---------------------------------------------------------------------------------------------- mixed sets

@pytest.mark.parametrize(("ratio", "added"), [(0.0, 0), (0.1, 1), (0.5, 10), (0.75, 30), (0.9, 90)])
def test_every_real_image_is_there_once_and_the_ratio_holds(noisy: Noisy, ratio: float, added: int) -> None:
    mixed = Mixed(Drawings(), noisy["styles"], ratio=ratio)
    assert len(mixed) == 10 + added
    numbers = [mixed.generated(i) for i in range(len(mixed))]
    assert [number for number in numbers if number is not None] == list(range(added))
    real = [mixed[i] for i, number in enumerate(numbers) if number is None]
    assert [int(image[0, 0, 0]) for image, _ in real] == [10 * i for i in range(10)]
    assert [label for _, label in real] == [i % 3 for i in range(10)]
    for size in (10, 20):       # Any stretch has its share.
        for first in range(len(mixed) - size + 1):
            assert abs(sum(number is not None for number in numbers[first:first + size]) - ratio * size) <= 1.1


def test_generated_images_are_those_of_the_seed_with_their_labels(noisy: Noisy) -> None:
    mixed, model = Mixed(Drawings(), noisy["styles"], ratio=0.5, seed=7, truncation=0.8), load(noisy["styles"], device="cpu")
    for i in range(20):
        number = mixed.generated(i)
        if number is not None:
            image, label = mixed[i]
            assert label == number % 3
            expected = model.render([number], torch.tensor([label]), seed=7, truncation=0.8)[0]
            assert np.array_equal(image, to_array(expected, ImageFormat()))
    assert np.array_equal(Mixed(Drawings(), model, seed=7, truncation=0.8)[1][0], mixed[1][0])


@pytest.mark.parametrize("of", ["model", "folder", "zip"])
def test_a_position_says_all(noisy: Noisy, i2i: Run, of: str) -> None:
    """Whatever was asked for before, in this process or others."""
    fake = noisy["styles"]
    if of != "model":
        fake = Path("out.zip" if of == "zip" else "out").absolute()
        assert i2i("generate", noisy["styles"], "--n", 8, "--out", fake).code == 0
    mixed = Mixed(Drawings(), fake, seed=3)
    there = [mixed[i] for i in range(len(mixed))]
    copy = pickle.loads(pickle.dumps(mixed))
    for i in (13, 2, 19, 3, -1):
        assert np.array_equal(copy[i][0], there[i][0])
        assert copy[i][1] == there[i][1]
    loaded = [item for batch in DataLoader(mixed, 5, num_workers=2) for item in zip(*batch, strict=True)]
    assert all(np.array_equal(a, b) and int(c) == d for (a, c), (b, d) in zip(loaded, there, strict=True))
    assert len(list(mixed)) == 20
    with pytest.raises(IndexError):
        mixed[20]


def test_a_folder_is_gone_through_before_an_image_comes_again(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    assert i2i("generate", noisy["styles"], "--n", 5, "--out", "out").code == 0
    files = {(tmp_path / "out" / file).read_bytes(): file for file in (p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png"))}
    known = {np.asarray(Image.open(tmp_path / "out" / file)).tobytes(): file for file in files.values()}
    orders = []
    for seed in (0, 1):
        mixed = Mixed(Drawings(), tmp_path / "out", seed=seed)
        made = [mixed[i] for i in range(20) if mixed.generated(i) is not None]
        orders.append([known[image.tobytes()] for image, _ in made])
        assert Counter(orders[-1][:5]) == Counter(orders[-1][5:]) == Counter(known.values())
        for (_, label), file in zip(made, orders[-1], strict=True):
            assert label == int(file.stem) % 3
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("kind", "args"), [("array", "(32, 32, 3)"), ("gray", "(32, 32)"), ("tensor", "(3, 32, 32)"), ("picture", "RGB")])
def test_generated_images_are_of_the_type_of_the_real_ones(noisy: Noisy, kind: str, args: str) -> None:
    mixed = Mixed(Drawings(kind, labeled=False), noisy["plain"])
    real, made = mixed[0], mixed[1]
    assert mixed.generated(0) is None
    assert mixed.generated(1) == 0
    assert type(real) is type(made)
    assert (made.mode if kind == "picture" else str(tuple(made.shape))) == args
    assert kind == "picture" or made.dtype == real.dtype


def test_a_transform_makes_them_anything_else(noisy: Noisy) -> None:
    """Those of torchvision, for instance."""
    def transform(picture: Image.Image) -> torch.Tensor:
        assert isinstance(picture, Image.Image)
        return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255

    v2 = transforms.Compose([transforms.ToImage(), transforms.Resize(32), transforms.ToDtype(torch.float32, scale=True)])
    of_torchvision = Mixed(Drawings("float"), noisy["classes"], transform=v2)
    mixed = Mixed(Drawings("float"), noisy["classes"], transform=transform)
    assert [(image.shape, image.dtype) for image, _ in (mixed[0], mixed[1])] == [((3, 32, 32), torch.float32)] * 2
    torch.testing.assert_close(of_torchvision[1][0].as_subclass(torch.Tensor), mixed[1][0])
    assert next(iter(DataLoader(mixed, 20)))[0].shape == (20, 3, 32, 32)


def test_labels_that_are_tensors_stay_tensors(noisy: Noisy) -> None:
    real = [(np.zeros((32, 32, 3), np.uint8), torch.tensor(i % 3, dtype=torch.int32)) for i in range(4)]
    labels = next(iter(DataLoader(Mixed(real, noisy["classes"]), 8)))[1]
    assert labels.dtype == torch.int32
    assert labels.tolist() == [0, 0, 1, 1, 2, 2, 0, 0]


def test_what_does_not_fit_is_refused(noisy: Noisy, trained: Path, tmp_path: Path) -> None:
    other = Drawings()
    other.classes = ["red", "blue", "green"]
    for real, fake, args, expected in (
            (Drawings(), noisy["plain"], {}, "the generated ones have none"), (other, noisy["classes"], {}, "the same in the same order"),
            (Drawings("float"), noisy["classes"], {}, "transform="), (Drawings(), noisy["classes"], {"ratio": 1.0}, "ratio=1.0"),
            (Drawings(), noisy["classes"], {"ratio": -0.1}, "ratio=-0.1"), ([], noisy["classes"], {}, "an empty set"),
            (Drawings(), trained, {}, "use translate"), (Drawings(), tmp_path / "nothing", {}, "does not exist"), (Drawings(), tmp_path, {}, "holds no images"),
            ([(np.zeros((4, 4, 3), np.uint8), 0, 1)], noisy["classes"], {}, "3 parts"), (Drawings(), noisy["classes"], {"truncation": 0.5}, "style space")):
        with pytest.raises(RequestError, match=expected):
            Mixed(real, fake, **args)      # type: ignore[arg-type]


def test_the_package_imports_torch_only_when_asked() -> None:
    code = "import sys, i2i; print('torch' in sys.modules); i2i.Mixed; i2i.Translate; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "True"]
    assert {"Mixed", "Translate"} <= set(package.__all__)
