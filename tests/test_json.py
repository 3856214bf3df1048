"""`--json`: every command that prints figures writes them as JSON, to a file or to stdout, which then holds nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from i2i.cli import app
from i2i.metrics.networks.random_filters import RandomFilters
from tests.conftest import SMALL, Run, drawing, drawn_strips
from tests.test_hype import session, write

# What each prints is where it wrote something, or facts that its file or page holds.
ABOUT_THE_MACHINE = r"(?m)^(memory|disk): .*|^pix2pix: .*|peak memory .*|[\d.]+ (images/s|s\b)|\d:\d\d:\d\d left|, where images are -1 to 1"
WITHOUT_FIGURES = {"report", "studio", "convert", "push", "pull", "weights add", "weights fetch", "data export", "explore arithmetic", "explore interpolate", "explore mix", "explore walk"}
CASES: dict[str, list[object]] = {
    "train": ["pix2pix", *SMALL, "images=8", "--data", "strips", "--out", "new"],
    "train --dry-run": ["pix2pix", *SMALL, "--data", "strips"],
    "translate": ["{trained}", "strips/test", "--half", "left", "--out", "translated"],
    "generate": ["{noisy}", "--n", 3, "--out", "generated"],
    "score": ["{noisy}", "images", "--anomalies", "boxes"],
    "evaluate": ["--real", "images", "--fake", "boxes", "--metrics", "color", "--features", "random", "--bootstrap", 3],
    "leaks": ["--train", "images", "--fake", "boxes", "--test", "others", "--features", "random"],
    "worth --dry-run": ["--real", "classes", "--test", "others", "--fake", "classes", "--shares", 100, "--ratios", "1/2"],
    "audit": ["{trained}", "--data", "images", "--features", "random", "--n", 8],
    "models": [], "list": ["pix2pix"], "data list": [], "weights list": [],
    "data check": ["images"],
    "export": ["{trained}", "--out", "small.safetensors", "--half"],
    "explore invert": ["{noisy}", "images", "--n", 3, "--steps", 1, "--starts", 1, "--perceptual", 0, "--out", "inverted"],
    "hype build": ["--real", "images", "--fake", "boxes", "--images", 4, "--qualification", 0, "--practice", 0, "--pool", 6],
    "hype score": ["answers"],
    "bench modes": ["ring", "--only", "gan", "--seeds", 1, "--no-costs", "--steps", 2, "--set", "generator.width=4", "--set", "discriminator.width=4"],
    "bench judges": ["random", "--data", "images", "--n", 20],
}


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All commands of the application by name."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_every_command_has_the_option_or_prints_no_figures() -> None:
    found = {name: any("--json" in each.opts for each in command.params) for name, command in commands()}
    assert {name for name, has in found.items() if not has} == WITHOUT_FIGURES
    assert {name for name, has in found.items() if has} == {case.partition(" --")[0] for case in CASES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small inputs of all commands."""
    base = tmp_path_factory.mktemp("json")
    drawn_strips(base / "strips")
    for i in range(40):
        picture = Image.fromarray(drawing(i)[:, 32:])
        for path in (base / "images" / f"{i:02}.png", base / "classes" / "ab"[i % 2] / f"{i}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    for name, first in (("boxes", 50), ("others", 100)):
        for i in range(20):
            (base / name / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - drawing(first + i)[:, 32:]).save(base / name / "ab"[i % 2] / f"{i:02}.png")
    write(base / "answers", *(session(f"s{i}", fooled=1 + i % 3, seed=i) for i in range(4)))
    return base


def figures(value: Any) -> Iterator[float]:
    """All numbers of a result, those within its texts and the lengths of its lists included."""
    if isinstance(value, dict | list):
        yield len(value)
        for each in value.values() if isinstance(value, dict) else value:
            yield from figures(each)
        if isinstance(value, dict):
            yield from (number for key in value for number, _ in numbers(key))
    elif isinstance(value, str):
        yield from (number for number, _ in numbers(value))
    elif isinstance(value, int | float):
        yield float(value)


def numbers(text: str) -> list[tuple[float, float]]:
    """Numbers in a text, and by how much rounding may have changed each."""
    found = []
    for match in re.finditer(r"(?<![\w.])[-+]?(\d[\d,]*)(?:\.(\d+))?(?:e([-+]\d+))?", text):
        number, decimals, exponent = float(match[0].replace(",", "")), len(match[2] or ""), int(match[3] or 0)
        found.append((number, 0.51 * 10.0 ** (exponent - decimals)))
    return found


@pytest.mark.parametrize("case", CASES)
def test_stdout_is_the_json_and_holds_the_figures_that_are_printed(case: str, folder: Path, request: pytest.FixtureRequest, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(RandomFilters, "size", 32)
    models = {"{trained}": lambda: request.getfixturevalue("trained"), "{noisy}": lambda: request.getfixturevalue("noisy")["plain"]}
    words = [str(models[word]() if word in models else word) for word in CASES[case]]
    done = i2i(*case.split(), *words, "--json", "-")
    assert done.code == 0, done.err
    assert done.err
    held = sorted(each * scale for each in figures(json.loads(done.out)) for scale in (1, 100, 1e-3, 1e-6, 1e-9))
    printed = numbers(re.sub(ABOUT_THE_MACHINE, "", done.err))
    missing = {number for number, margin in printed if np.min(np.abs(np.array(held) - number)) > margin
               and not (number > 1e6 and f"{number:.0f}" in done.out)}       # Beginnings of checksums.
    assert missing <= {number for word in words for number, _ in numbers(word)}, done.err


def test_a_file_gets_the_same_and_stdout_is_as_without(i2i: Run, tmp_path: Path) -> None:
    plain = i2i("models")
    assert i2i("models", "--json", tmp_path / "list.json") == plain
    shown = i2i("models", "--json", "-")
    assert (shown.out, shown.err) == ((tmp_path / "list.json").read_text(), plain.out)
    assert i2i("models").out == plain.out         # Stdout is what it was.


def test_without_a_result_stdout_is_empty(i2i: Run, tmp_path: Path) -> None:
    done = i2i("evaluate", "--real", "nowhere", "--fake", "nowhere", "--json", "-")
    assert (done.code, done.out) == (2, "")
    (tmp_path / "file").touch()
    assert i2i("models", "--json", "file/x.json").line == "error: --json file/x.json cannot be written; accepted: a file in a folder that can be written"
    assert i2i("models", "--json", "").line == "error: the value of --json is empty"


def test_names_of_files_that_are_no_text_are_valid_json(i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "set" / "ok.png")
    (tmp_path / "set" / "\udcff.png").write_bytes(b"no image")
    done = i2i("data", "check", "set", "--json", "-")
    assert "\\udcff.png" in done.out
    assert "\udcff.png: " in json.loads(done.out)["findings"][0]["examples"][0]
