"""Fixtures: small data sets made on the spot, a small trained run, and the command line in this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2i.cli import app

REFERENCE = Path(__file__).parent / "reference"
CYCLE = ("generator.width=4", "generator.blocks=1", "discriminator.width=4", "discriminator.layers=1", "pool=3", "train.batch_size=2", "train.log_every=6", "train.checkpoint_every=8")
CUT = (*(word for word in CYCLE if word != "pool=3"), "nce_width=8", "nce_patches=16", "nce_layers=0,4,8,12")
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
SMALL = ("generator.width=4", "discriminator.width=4", "discriminator.layers=1", "train.batch_size=2", "train.log_every=6", "train.checkpoint_every=8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes: --slow"))


def pytest_configure() -> None:
    torch.set_num_threads(1)        # For fixtures of modules, which come before those of a test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:       # In the background of a shell, whose Ctrl-C is not meant.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _one_thread_and_no_terminal() -> None:
    torch.set_num_threads(1)
    os.environ.pop("COLUMNS", None)     # Test runners export it, and listings are wrapped to it.


@pytest.fixture(autouse=True, scope="session")
def _pixels_instead_of_features() -> Iterator[None]:
    """Runs of images from noise are judged by small pictures: features take seconds.  tests/training/test_collapse_detector.py has them too."""
    from i2i.metrics import judges
    from i2i.training import train as training
    from i2i.training.callbacks import fixed_inputs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "SECOND_JUDGES", ())      # tests/test_judges.py has them.
        patch.setattr(training, "best_embedding", lambda device, tell, *rest: fixed_inputs.thumbnails(fixed_inputs.THUMBNAIL_SIZE))
        yield


@pytest.fixture(autouse=True, scope="session")
def _estimates_once() -> Iterator[None]:
    """The estimate of a job's memory takes as long as a small training: the same one is computed once."""
    from i2i.training import memory
    compute, known = memory.estimate_memory, dict[str, Any]()

    def estimate_memory(recipe: Any, info: Any, **options: Any) -> Any:
        key = f"{id(type(recipe))} {recipe!r} {info!r} {options!r}"
        if key not in known:
            known[key] = compute(recipe, info, **options)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "estimate_memory", estimate_memory)
        yield


def drawing(index: int, size: int = 32) -> np.ndarray:
    """A strip: the outline of a box, and the same box filled with a color that follows its place."""
    g = np.random.default_rng(index)
    x, y = g.integers(2, size // 2, 2)
    strip = np.full((size, 2 * size, 3), 255, np.uint8)
    strip[y:y + 12, x:x + 12] = 0
    strip[y + 1:y + 11, x + 1:x + 11] = 255
    strip[y:y + 12, size + x:size + x + 12] = (8 * x, 8 * y, 128)
    return strip


def drawn_strips(folder: Path) -> Path:
    """A folder of A|B strips, 32x32 each: 10 train, 3 val, 4 test."""
    for split, count, first in (("train", 10, 0), ("val", 3, 100), ("test", 4, 200)):
        (folder / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(drawing(first + i)).save(folder / split / f"{i:02}.png")
    return folder


@pytest.fixture
def strips(tmp_path: Path) -> Path:
    """Strips of which a test may change what it likes."""
    return drawn_strips(tmp_path / "strips")


def two_styles(folder: Path, *splits: str) -> Path:
    """Unpaired sides of other numbers, names and sizes: 7 dark boxes of 32x32, 5 light ones of 40x48; 3 test images of each, of equal names.

    `splits` ("val") get such pairs too.
    """
    for split, count_a, count_b in (("train", 7, 5), ("test", 3, 3), *((split, 3, 3) for split in splits)):
        for side, count, size in (("A", count_a, (32, 32)), ("B", count_b, (40, 48) if split == "train" else (32, 32))):
            (folder / f"{split}{side}").mkdir(parents=True)
            for i in range(count):
                g = np.random.default_rng([len(split), i, ord(side)])
                picture = np.full((*size, 3), 0 if side == "A" else 255, np.uint8)
                y, x = g.integers(2, 16, 2)
                picture[y:y + 12, x:x + 12] = g.integers(80, 180, 3)
                Image.fromarray(picture).save(folder / f"{split}{side}" / (f"{i}.png" if split != "train" else f"{side.lower()}{i}.png"))
    return folder


@pytest.fixture
def sides(tmp_path: Path) -> Path:
    """A folder of two unpaired sides."""
    return two_styles(tmp_path / "sides")


@dataclass
class Result:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of the error."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0]


Run = Callable[..., Result]


@pytest.fixture
def i2i(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command line in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Result:
        capsys.readouterr()
        code = app.run([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small finished pix2pix run."""
    import i2i as package
    base = tmp_path_factory.mktemp("trained")
    (base / "data" / "train").mkdir(parents=True)
    (base / "data" / "test").mkdir()
    for i in range(6):
        Image.fromarray(drawing(i)).save(base / "data" / "train" / f"{i}.png")
        Image.fromarray(drawing(50 + i)).save(base / "data" / "test" / f"{i}.png")
    return package.train("pix2pix", *SMALL, "train.images=24", data=base / "data", out=base / "run", device="cpu")


NOISY = {
    "plain": ("dcgan", "generator.width=4", "generator.z_dim=8", "discriminator.width=4"),
    "classes": ("cgan", "generator.width=4", "generator.z_dim=8", "discriminator.width=4"),
    "styles": ("stylegan2", "conditional=true", "generator.width=4", "generator.max_channels=8", "generator.z_dim=8", "generator.w_dim=8",
               "generator.mapping_layers=2", "discriminator.width=4", "discriminator.max_channels=8")}
CLASSES = ("red", "train", "blue/green")        # Of which two are no names for folders of a data set.


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of small models that make 32x32 images from noise: without labels, with three classes, and those with styles."""
    import i2i as package
    base = tmp_path_factory.mktemp("noisy")
    (base / "data").mkdir()
    for i in range(6):
        Image.fromarray(drawing(i)[:, 32:]).save(base / "data" / f"{i}.png")
    (base / "data" / "dataset.json").write_text(json.dumps({"labels": [[f"{i}.png", i % 3] for i in range(6)], "classes": CLASSES}))
    return {name: package.train(recipe, *words, "train.batch_size=4", "train.images=160", "train.ema_half_life=0", data=base / "data", out=base / name, device="cpu")
            for name, (recipe, *words) in NOISY.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed (Debian package chromium)")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
