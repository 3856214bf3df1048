"""The documentation as a site: pictures are what the code says, references hold all there is, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import typer

from i2i import registry
from i2i.cli import app
from i2i.recipes.pix2pix import Pix2Pix

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
Script = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """A script of docs, as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))

    def load(name: str) -> ModuleType:
        if name == "hooks":
            pytest.importorskip("mkdocs")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)
    return load


@pytest.mark.parametrize("name", ["recipe_diagrams", "loss_pictures"])
def test_committed_pictures_are_those_that_the_code_draws(name: str, script: Script) -> None:
    for path, text in script(name).files().items():
        assert path.read_text() == text, f"run: python docs/{name}.py"


def arrows(turn: tuple) -> set[tuple[str, str, bool]]:
    """The arrows of a picture by what its boxes say: from, to, dashed."""
    _, nodes, edges = turn
    return {(nodes[a].text, nodes[b].text, dashed) for a, b, dashed in edges}


def test_a_diagram_says_who_feeds_whom_and_who_learns(script: Script) -> None:
    d, g = script("recipe_diagrams").turns("pix2pix")
    assert arrows(d) == {("a: source", "G", False), ("G", "D", True), ("a: source", "D", False), ("b: target", "D", False), ("D", "d", False)}
    assert arrows(g) == {("a: source", "G", False), ("G", "D", False), ("a: source", "D", False), ("D", "gan", False), ("G", "l1", False), ("b: target", "l1", False)}
    assert {node.text for node in d[1].values() if node.style == "trained"} == {"D"}
    assert {node.text for node in g[1].values() if node.style == "trained"} == {"G"}


def test_another_algorithm_has_another_diagram(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that also sees the target, as no generator may."""
    step = Pix2Pix.step
    monkeypatch.setattr(Pix2Pix, "step", lambda self, m, batch, *rest: step(self, m, dict(batch) | {"a": batch["a"] + batch["b"]}, *rest))
    assert ("b: target", "G", False) in arrows(script("recipe_diagrams").turns("pix2pix")[1])


def commands(command: object, path: str = "i2i") -> set[str]:
    below = getattr(command, "commands", {})
    return {path}.union(*(commands(each, f"{path} {name}") for name, each in below.items()))


def test_the_references_hold_every_command_component_and_public_name(script: Script) -> None:
    hooks = script("hooks")
    assert set(re.findall(r"^## `(i2i[^`]*)`$", hooks.command_line(), re.M)) == commands(typer.main.get_command(app)) - {"i2i"}
    settings = hooks.settings()
    assert all(f"### penalty {name}\n" in settings for name in registry.names("penalty"))
    assert "penalty.gamma" in settings or "gamma" in settings.partition("### penalty r1\n")[2][:600]
    assert all(f"::: {name}\n" in hooks.python() for name in ("i2i.load", "i2i.train", "i2i.registry.register", "i2i.recipes.base.Recipe"))


@dataclass(frozen=True)
class Link:
    page: str
    target: str


def test_every_link_between_pages_leads_to_a_file() -> None:
    links = [Link(str(page.relative_to(ROOT)), target) for page in PAGES for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S))]
    assert len(links) > 150
    assert [link for link in links if not (ROOT / Path(link.page).parent / link.target).exists()] == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 50
    loaded = [address for page in pages for address in re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="?(https?:[^"> ]*)', page.read_text())]
    assert loaded == []
    assert 'class="language-mermaid"' not in (tmp_path / "architecture.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pairs", "unpaired", "augmentation"])
def test_a_notebook_runs_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few images; commands are those of this checkout."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    tool = tmp_path / "bin" / "i2i"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\n{sys.executable} -m i2i.cli "$@" || {{ echo "error: it ended with $?"; exit 1; }}\n')
    tool.chmod(0o755)
    for key, value in {"PATH": f"{tool.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "I2I_IMAGES": "64", "I2I_UPDATES": "20"}.items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if "error: " in output.get("text", "")]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 1
