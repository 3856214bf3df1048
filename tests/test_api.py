"""The public API: what `i2i` shows, what is documented, and its types."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

import i2i
from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
TYPED = """
from pathlib import Path
from typing import Any, assert_type
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
import i2i

model = i2i.load("runs/x")
assert_type(model, i2i.Model)
chain = i2i.Chain(model, (model, "ba"))
for translator in (model, chain):
    picture, array, tensor = Image.new("RGB", (8, 8)), np.zeros((8, 8, 3)), Tensor()
    assert_type(translator.translate(picture), Image.Image)
    assert_type(translator.translate(tensor), Tensor)
    assert_type(translator.translate("x.png"), Image.Image)
    assert_type(translator.translate(Path("x.png")), Image.Image)
    assert_type(translator.translate([picture, picture]), list[Image.Image])
    assert_type(translator.translate([tensor]), list[Tensor])
    assert_type(translator.translate([Path("x.png")]), list[Image.Image])
    assert_type(translator.translate(array), NDArray[Any])
    translator.translate(3)  # type: ignore[call-overload]
assert_type(model.generate(3), Tensor)
assert_type(model.classes, tuple[str, ...])
assert_type(i2i.train("pix2pix"), Path)
"""


def test_dir_shows_what_is_public_and_nothing_else() -> None:
    assert dir(i2i) == i2i.__all__
    assert all(hasattr(i2i, name) for name in i2i.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        i2i.nothing  # noqa: B018


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, i2i; dir(i2i); i2i.RequestError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_public_name_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"^\| `(?:i2i\.)?(\w+)", page, re.MULTILINE)) >= set(i2i.__all__)
    for name in set(i2i.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(i2i, name)), name


@pytest.mark.parametrize("which", ["Model", "Chain", "Callback", "Mixed", "Translate"])
def test_public_methods_are_documented(which: str) -> None:
    """On the page the class's own, and each with a docstring."""
    own = [name for name, value in vars(getattr(i2i, which)).items() if callable(value) and not name.startswith("_")]
    for name in own:
        assert inspect.getdoc(getattr(getattr(i2i, which), name)), name


def held() -> tuple[set[str], set[str], list[str]]:
    """Open files, threads and child processes of this process."""
    process = psutil.Process()
    return ({file.path for file in process.open_files()}, {thread.name for thread in threading.enumerate()}, [child.name() for child in process.children(recursive=True)])


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_nothing_is_held_between_two_calls(strips: Path, noisy: dict[str, Path], tmp_path: Path, cache: str) -> None:
    """No file, thread or process, whatever was used, so no object needs `with` or `close`."""
    images = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "strips" / "test")
    before = held()
    run = i2i.train("pix2pix", *SMALL, "train.images=4", "train.num_workers=1", f"data.cache={cache}", data=strips, out=tmp_path / "run", device="cpu")
    model, generator = i2i.load(run, device="cpu"), i2i.load(noisy["plain"], device="cpu")
    image = np.zeros((32, 32, 3), np.uint8)
    translate = i2i.Translate(run, p=1)
    assert i2i.Chain(model, model).translate(image).shape == translate(image=image)["image"].shape == image.shape
    mixed = [i2i.Mixed([image], fake, 0.5) for fake in (generator, images)]
    assert [each[index].shape for each in mixed for index in (0, 1)] == [image.shape, image.shape, image.shape, (32, 64, 3)]
    assert held() == before


@pytest.mark.slow
def test_types_are_precise(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    done = subprocess.run([sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "typed.py"), "--warn-unused-ignores"],
                          capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
