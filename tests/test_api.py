"""The public API: what `i2i` shows, what is documented, and its types."""

from __future__ import annotations

import importlib
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


def test_commands_start_without_what_takes_seconds_to_import() -> None:
    """torchvision's models import TorchDynamo."""
    code = "import sys, i2i.cli.catalog, i2i.inference.model, i2i.inference.translate, i2i.evaluation.request, i2i.training.train; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, timeout=100, capture_output=True, text=True).stdout.split()
    assert "torch.nn" in modules
    assert not {"torchvision.models", "torch._dynamo", "scipy.stats", "scipy.signal", "triton"} & set(modules)


def test_every_public_name_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"^\| `(?:i2i\.)?(\w+)", page, re.MULTILINE)) >= set(i2i.__all__)
    for name in set(i2i.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(i2i, name)), name


def members(cls: type, instance: object) -> set[str]:
    """The public names of an object that its class, or one of ours that it inherits from, gives it."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("i2i.")]
    names = {name for base in ours for name in (*vars(base), *inspect.get_annotations(base))} | set(vars(instance))
    return {name for name in names if not name.startswith("_")} - set(dir(cls.__mro__[len(ours)]))


def documented(text: str) -> set[str]:
    """The words that stand in code, without the arguments of calls."""
    return {name for code in re.findall(r"`([^`]+)`", text) for name in re.findall(r"(\w+)", code.partition("(")[0])}


def test_every_public_member_is_on_the_page_and_has_a_docstring(trained: Path, noisy: dict[str, Path]) -> None:
    page = (ROOT / "docs" / "api.md").read_text().partition("## Model\n")[2].partition("## For plugins")[0]
    table, _, text = page.partition("\n\n`repr(model)`")
    callbacks = (ROOT / "docs" / "callbacks.md").read_text()
    model = i2i.load(trained, device="cpu")
    mixed = i2i.Mixed([np.zeros((32, 32, 3), np.uint8)], noisy["plain"], 0.5)
    names = "|".join(("i2i.Chain", "i2i.Mixed", "i2i.Translate", "The methods"))
    sentences = {match[1]: match[0] for match in re.finditer(rf"`({names})`.*?(?=`(?:{names})`|The methods|$)", text, re.DOTALL)}
    for instance, where in ((model, table), (i2i.Chain(model), sentences["i2i.Chain"]), (mixed, sentences["i2i.Mixed"]), (i2i.Callback(), callbacks)):
        public = members(type(instance), instance)
        assert public
        assert public <= documented(where), public - documented(where)
        if instance is model:       # Nor does the page promise what is not there.
            assert documented(re.sub(r"\| [^|`][^|]*\|\n", "|\n", table)) - {"model", "member"} == public
        for name in public & set(dir(type(instance))):
            assert inspect.getdoc(getattr(type(instance), name)), name
    assert repr(mixed) == "Mixed(2 images: 1 real, 1 generated)"


def test_what_examples_import_is_on_the_list_for_plugins_which_exists() -> None:
    listed = {}
    for line in (ROOT / "docs" / "api.md").read_text().partition("## For plugins")[2].splitlines():
        if match := re.match(r"\| `(i2i\.[\w.]+)` \| (.*) \|", line):
            listed[match[1]] = re.findall(r"`(\w+)`", match[2])
    for module, names in listed.items():
        assert names
        assert all(hasattr(importlib.import_module(module), name) for name in names), module
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = {(module, name) for page in pages for module, names in re.findall(r"^ *from (i2i[\w.]*) import (.+)$", page.read_text(), re.MULTILINE)
             for name in names.split("  #")[0].split(", ")}
    assert len(found) > 10
    assert {(module, name) for module, name in found if name not in listed.get(module, i2i.__all__ if module == "i2i" else ())} == set()


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
