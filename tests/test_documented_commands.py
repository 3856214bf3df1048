"""Every `i2i` command and every Python example of README and docs runs as it is written; sizes are made small by settings added at the end.

What cannot be run names only what exists: options in usage lines, scripts of bench and their options, tests and their names.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import re
import runpy
import shlex
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import typer
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from PIL import Image

import i2i as package
from i2i import registry, train
from i2i.cli import app
from i2i.data.sources import bundled_datasets
from i2i.metrics.networks.random_filters import RandomFilters
from i2i.recipes.presets import PRESETS
from i2i.registry import plugins
from i2i.training import train as training
from i2i.training.memory import MemoryEstimate
from i2i.training.time_budget import TimeBudget
from tests.conftest import SMALL, drawing, drawn_strips, two_styles
from tests.test_video import film, pictures

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "decisions")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SYNOPSIS = re.compile(r"[A-Z]{3,}|…|\[|\|[a-zA-Z ]")       # `--real DIR`, `warn|stop|off`: a usage line, not a command.
TINY = ("generator.width=4", "discriminator.width=4", "train.images=4", "train.batch_size=2", "data.size=32")
NOISE = ("generator.width=4", "discriminator.width=4", "train.images=8", "train.batch_size=4", "data.size=32")
DENOISING = ("denoiser.width=4", "steps=2", "train.images=8", "train.batch_size=4", "data.size=32")
FAMILIES = {"vae": ("generator.width=4", "encoder.width=4", *NOISE[2:]), "flow": ("network.width=4", "network.couplings=1", *NOISE[2:]), "autoregressive": ("network.width=4", "network.blocks=1", *NOISE[2:-1], "data.size=16"),
            **dict.fromkeys(("diffusion", "palette"), DENOISING)}
MORE = {"stylegan2-ada": ("generator.max_channels=8", "discriminator.max_channels=8", "generator.z_dim=8", "generator.w_dim=8", "generator.mapping_layers=1"),
        "cyclegan": ("generator.norm=instance",)}


def documented() -> list[tuple[str, str]]:
    """(page, command) of every fenced `i2i` line, each with its first page; commands joined by `;` one by one, continued lines as one."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                line = re.split(r"\s{2,}#? |\s#\s", line.strip().removeprefix("$ "))[0]
                found += [(page.name, part.strip()) for part in line.split(";") if part.strip().startswith("i2i ")]
    found += [(page.name, line[1:].format(images=8, updates=2)) for page in NOTEBOOKS for cell in json.loads(page.read_text())["cells"]
              for line in "".join(cell["source"]).splitlines() if line.startswith("!i2i ")]
    return [(page, command) for command, page in {command: page for page, command in reversed(found)}.items()][::-1]     # Once, where it is first.


COMMANDS = [(page, command) for page, command in documented() if not SYNOPSIS.search(command)]


class Buckets(MemoryFileSystem):
    """The object stores that the pages name, in memory."""

    protocol = ("s3", "gs")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(re.sub("^(s3|gs)://", "memory://", path)))


@pytest.fixture(scope="module")
def buckets(workspace: Path) -> Iterator[None]:
    """What the pages read from object stores: strips as a folder, in zips and in shards, photographs, and a run."""
    files = MemoryFileSystem()
    shutil.make_archive(str(workspace / "strips"), "zip", workspace / "facades")
    for name in ("facades.zip", "photos.zip"):
        files.pipe(f"/bucket/{name}", (workspace / "strips.zip").read_bytes())
    for target, source in (("photos", workspace / "facades"), ("in", workspace / "photos")):
        for path in source.rglob("*.png"):
            files.pipe(f"/bucket/{target}/{path.relative_to(source).as_posix()}", path.read_bytes())
    for number, path in enumerate(sorted((workspace / "facades" / "train").glob("*.png"))[:4]):
        with tarfile.open(workspace / "shard.tar", "w") as shard:
            shard.add(path, path.name)
        files.pipe(f"/bucket/train-{number:03}.tar", (workspace / "shard.tar").read_bytes())
    files.pipe("/bucket/run/model.safetensors", (workspace / "runs" / "demo" / "model.safetensors").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        for protocol in Buckets.protocol:
            patch.setitem(_registry, protocol, Buckets)
        yield
    MemoryFileSystem.store.clear()


def made_small(words: list[str]) -> list[str]:
    """The words of a command, with settings that make it quick; what is measured or trained is smaller, what is typed the same."""
    verb = words[0]
    if verb == "train" and "--resume" not in words:
        for length, value in (("--epochs", "1"), ("--minutes", "1")):
            if length in words:
                return [*words, length, value, *(["--dry-run"] if length == "--minutes" else []), *(word for word in TINY if not word.startswith("train.images"))]
        small = FAMILIES.get(words[1], TINY if words[1] in ("pix2pix", "cyclegan") else NOISE)
        return [*words, *small, *(MORE.get(words[1], ()) if "generator.norm=instance" not in words else ())]
    if verb == "generate":
        return [*words, "--n", "16"]
    if words[:2] == ["explore", "walk"]:
        return [*words, "--frames", "4"]
    if words[:2] == ["explore", "invert"]:
        return [*words, "--n", "2", *(() if "runs/vae" in words else ("--steps", "2", "--perceptual", "0"))]
    if words[:2] == ["bench", "modes"]:
        return [*words, "--steps", "2", "--seeds", "1", "--no-costs", *(() if "--only" in words else ("--only", "pack-2"))]
    if words[:2] == ["hype", "build"]:
        return [*words, "--images", "4", "--qualification", "4", "--practice", "2", "--pool", "9"]
    if verb == "worth" and "--dry-run" not in words:
        return [*words, "--updates", "2", "--seeds", "2", "--shares", "100", "--ratios", "1"]
    if words[:2] == ["bench", "judges"]:
        return [*words, "random", "--n", "20"]
    return words


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with every file and run that the commands name."""
    base = tmp_path_factory.mktemp("documented")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        patch.setattr(training, "memory_estimate", lambda job, world_size=1: MemoryEstimate(0, 0, 0, 0, 0))     # Takes as long as such a training.
        patch.setattr(RandomFilters, "size", 32)
        for name in ("facades", "maps"):
            drawn_strips(base / name)
        for name in ("horse2zebra", "x", "people"):
            two_styles(base / name)
        with ZipFile(bundled_datasets()["peeps-64"]) as peeps:
            peeps.extractall(base / "heads", [name for name in peeps.namelist() if Path(name).stem.endswith("3")])
        for name, first in {"photos": 0, "sketches": 20, "zebras": 40, "generated": 60, "odd": 60, "noisy": 60, "png": 80, "jpg": 80}.items():
            (base / name).mkdir()
            for i in range(24):
                Image.fromarray(drawing(first + i, 32)[:, 32:]).save(base / name / f"{i}.{'jpg' if name == 'jpg' else 'png'}")
        film(base / "clip.mp4", pictures(3))
        Image.new("RGB", (32, 32)).save(base / "waving.gif", save_all=True, append_images=[Image.new("RGB", (32, 32), "red")])
        for i in range(2):
            shutil.copy(base / "photos" / f"{i}.png", base / f"{'AB'[i]}.png")
        for split in ("train", "test"):
            shutil.copytree(base / "facades" / split, base / "openmoji-64" / split)
        shutil.copytree(base / "facades", base / "drawings")
        shutil.copytree(base / "people" / "testB", base / "red")
        shutil.copytree(base / "photos", base / "made")
        shutil.copytree(base / "facades", base / "scans")
        exec(re.search(r"```python\n(import albumentations as A\n.*?)```", (ROOT / "docs" / "data.md").read_text(), re.S)[1], {})
        (base / "my_loss.py").write_text(re.search(r"```python\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(), re.S)[1])
        (base / "docs").mkdir()
        for page in ("modes.md", "evaluation.md"):
            shutil.copy(ROOT / "docs" / page, base / "docs" / page)
        shutil.make_archive(str(base / "photos"), "zip", base / "photos")
        reference = ROOT / "tests" / "reference" / "networks"
        for name, net in {"latest_net_G": "unet_128_batch_ngf8", "latest_net_G_A": "resnet_6blocks_batch_ngf8", "latest_net_G_B": "resnet_6blocks_batch_ngf8"}.items():
            shutil.copy(reference / f"{net}_net.pth", base / f"{name}.pth")
        sgan = ("generator.width=4", "discriminator.width=4", "generator.z_dim=8", "train.images=8", "train.batch_size=4", "data.size=32")
        for name, recipe, words, data in (("facades", "pix2pix", SMALL, "facades"), ("demo", "pix2pix", (*SMALL, "generator.up=resize", "generator.input_skip=16", "generator.dropout=0"), "facades"), ("sketch", "pix2pix", SMALL, "facades"), ("first", "pix2pix", SMALL, "facades"), ("refine", "pix2pix", SMALL, "facades"),
                                          *((name, "cyclegan", ("generator.width=4", "generator.blocks=1", "discriminator.width=4"), "horse2zebra") for name in ("cyclegan", "cyc")),
                                          ("sngan", "sngan", (*sgan[:-1], "data.size=64"), "photos"), ("faces", "dcgan", sgan, "photos"), ("vae", "vae", FAMILIES["vae"], "photos"), ("cgan", "cgan", sgan, "heads")):
            package.train(recipe, *words, "train.images=8", "train.batch_size=4", data=data, out=f"runs/{name}", device="cpu")
        shutil.copy("runs/facades/model.safetensors", "model.safetensors")
        for name, other in {"drawings": "facades", "people": "cyc", "heads": "cgan", "scans": "facades", "tuned": "facades"}.items():      # Of the tutorials.
            shutil.copytree(f"runs/{other}", f"runs/{name}")
        assert app.run(["evaluate", "--real", "photos", "--fake", "generated", "--metrics", "fd,kid", "--json", "old.json"]) == 0
        for model, out in (("vae", "there-and-back"), ("sngan", "inverted")):
            assert app.run(made_small(["explore", "invert", f"runs/{model}", "photos", "--out", out])) == 0
        yield base


def anew(words: list[str]) -> list[str]:
    """The command with an output of its own: pages use one name for several runs and sets."""
    place = words.index("--out") + 1 if "--out" in words else 3
    fresh = Path("anew") / words[place]
    fresh.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.unlink(missing_ok=True)
    return [*words[:place], str(fresh), *words[place + 1:]]


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = app.run(words)
    return code, capsys.readouterr().err


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What plugins and examples register is gone after the test."""
    monkeypatch.setattr(registry, "_COMPONENTS", {kind: dict(table) for kind, table in registry._COMPONENTS.items()})
    monkeypatch.setattr(registry, "_ORIGINS", dict(registry._ORIGINS))
    monkeypatch.setattr(plugins, "_FILES", {})


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command[4:60]}" for page, command in COMMANDS])
def test_it_runs_as_written(page: str, command: str, workspace: Path, buckets: None, registries: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(TimeBudget, "since_start", classmethod(lambda cls, minutes: cls(minutes)))      # This process began long ago.
    words = made_small(shlex.split(command.replace("file:///mnt", workspace.as_uri()))[1:])
    words = anew(words) if (words[0] in ("train", "generate", "worth") and "--out" in words) or words[:2] == ["data", "export"] else words
    code, err = run(words, capsys)
    assert code == 0 or (code == 1 and words[:2] == ["data", "check"] and not err), err     # 1: the data have faults.


PYTHON = (r"^```python\n(.*?)^```", r"^python - <<'END'\n(.*?)^END", r"`((?:from|import) [^`\n]*)`")


def python_examples() -> list[tuple[str, str]]:
    """(page and line, source) of all blocks of Python, of what the shell passes to it, and of imports within sentences."""
    return [(f"{page.name}:{text.count(chr(10), 0, match.start(1)) + 1}", match[1])
            for page in PAGES for text in [page.read_text()] for pattern in PYTHON for match in re.finditer(pattern, text, re.M | re.S)]


def small_train(recipe: str = "", *words: str, **options: Any) -> Path:
    """`i2i.train` with settings that make it quick."""
    small = tuple(word for word in TINY if "epochs" not in options or not word.startswith("train.images")) if recipe else ()
    return train(recipe, *words, *small, **options | ({"epochs": 1} if "epochs" in options else {}), device="cpu")


@pytest.mark.parametrize(("where", "source"), python_examples(), ids=[where for where, _ in python_examples()])
def test_a_python_example_runs_as_written(where: str, source: str, workspace: Path, registries: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions return what stands there; the model of runs/demo is smaller, and addresses in memory are any."""
    for folder in (*workspace.iterdir(), ROOT / "datasets"):
        if folder.name not in ("png", "jpg"):       # Which one of them makes.
            (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(package, "train", small_train)
    names: dict[str, Any] = {"__name__": "example"}
    if ">>>" not in source:
        exec(compile(source, where, "exec", dont_inherit=True), names)
        return
    for example in doctest.DocTestParser().get_examples(source):
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            exec(compile(example.source, where, "single", dont_inherit=True), names)
        wanted = example.want.replace("10000", "8").replace("width=32", "width=4")
        assert re.sub("0x[0-9A-F]+", "0x", shown.getvalue()) == re.sub("0x[0-9A-F]+", "0x", wanted)


def test_the_pages_are_read() -> None:
    assert len(python_examples()) > 10
    assert {"pairs.md", "unpaired.md", "classifier.md", "16-bit.md", "s3.md"} <= {page.name for page in PAGES}
    assert len(NOTEBOOKS) == 3
    found = [command for _, command in documented()]
    assert len(COMMANDS) > 40
    assert {command.split()[1] for _, command in COMMANDS} >= {"train", "translate", "generate", "explore", "evaluate", "report", "convert", "data", "weights", "bench", "list"}
    assert "i2i list generator" in found


def usage() -> list[tuple[str, str]]:
    """(page, line) of the usage lines, with what stands beside them, and of all commands within sentences."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        text = page.read_text()
        blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)).replace("\\\n", " ")
        found += [(page.name, line) for line in blocks.splitlines() if line.startswith("i2i ")]
        found += [(page.name, line) for line in re.findall(r"`(i2i [^`]*)`", text)]
    return list(dict.fromkeys(found))


def the_command(root: Any, words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words after them."""
    command = root
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def test_usage_lines_name_options_that_exist() -> None:
    lines, root = usage(), typer.main.get_command(app)
    assert len(lines) > 100
    wrong: list[str] = []
    for page, line in lines:
        command, words = the_command(root, line.replace(";", " ;").split()[1:])
        options = {way: option for option in command.params for way in (*option.opts, *option.secondary_opts)} | {"--help": None}
        if hasattr(command, "commands") and words and words[0][0] not in "-#…;":
            wrong.append(f"{page}: {line}: there is no {words[0]}")
        for way, choices in re.findall(r"(?<![\w-])(--[a-z][a-z-]*)(?: ((?:[a-z]+\|)+[a-z]+))?", " ".join(words)):
            if way not in options:
                wrong.append(f"{page}: {line}: there is no {way}")
            elif choices and (missing := set(choices.split("|")) - set(re.findall(r"[a-z]+", f"{options[way].metavar} {options[way].help}"))):
                wrong.append(f"{page}: {line}: {way} does not take {missing}")
    assert wrong == []


SENTENCES = list(dict.fromkeys((page.name, line) for page in PAGES for line in re.findall(r"`(i2i train [^`]*=[^`]*)`", page.read_text()) if not SYNOPSIS.search(line)))


@pytest.mark.parametrize(("page", "line"), SENTENCES, ids=[f"{page}: {line[4:50]}" for page, line in SENTENCES])
def test_trainings_within_sentences_are_accepted(page: str, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = run([*shlex.split(line)[1:], "--dry-run"], capsys)
    assert code == 0, err


def scripts() -> list[tuple[str, str]]:
    """(page, command) of everything that is run by python or make."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        text = page.read_text().replace("`T/", "`python -m pytest tests/metrics/").replace("`T -k", "`python -m pytest tests/metrics -k")
        found += [(page.name, line) for line in re.findall(r"^(?:\$ )?(make [a-z]+|python [a-z][^\n]*?)(?:\s{2,}|\s#|$)", text, re.M)]
        found += [(page.name, line) for line in re.findall(r"`((?:python|make) [^`<]+)`", text)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("page", "line"), scripts(), ids=[f"{page}: {line}" for page, line in scripts()])
def test_scripts_and_tests_that_are_named_exist(page: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts are asked for their help after the options of the line, which are so read."""
    program, *words = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)
        return
    if words[:2] == ["-m", "pytest"]:
        paths = [ROOT / word for word in words[2:] if word.startswith("tests")]
        assert paths
        files = [file for path in paths for file in ([path] if path.suffix else path.rglob("test_*.py"))]
        text = " ".join(f"{file.name} {file.read_text()}" for file in files).lower()     # FileNotFoundError for one that is gone.
        expression = words[words.index("-k") + 1] if "-k" in words else ""
        for name in re.findall(r"[\w-]+", expression):
            assert name in ("or", "and", "not") or name.lower() in text, name
        assert "--slow" not in words or "mark.slow" in text
        return
    source = (ROOT / words[0]).read_text()
    assert [way for way in words[1:] if way.startswith("--") and f'"{way}"' not in source] == []
    if "argparse" in source:
        monkeypatch.syspath_prepend(str((ROOT / words[0]).parent))
        monkeypatch.setattr(sys, "argv", [*words, "--help"])
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        assert capsys.readouterr().out.startswith("usage: ")
    else:
        assert 'if __name__ == "__main__"' in source or words[0].startswith(("bench/", "docs/"))
        assert all(word in source or word.isdecimal() or word in registry.names("recipe") or word in PRESETS for word in words[1:])
