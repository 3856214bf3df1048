"""What the site has beside the pages of this folder; mkdocs calls these functions (`make docs`).

The references are written from the code when the site is built, and never committed: the command line from
Typer, the settings from `i2i list`, Python from the docstrings of the public API.
"""

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]      # mkdocs takes this back when the file is loaded.
from layout import direct, read  # noqa: E402
from svg_graph import Node, picture  # noqa: E402

import i2i  # noqa: E402
from i2i import registry  # noqa: E402
from i2i.cli import app  # noqa: E402

BESIDE = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")     # Pages that lie beside the folder.


def command_line() -> str:
    """The page of all commands with their options, by Typer's own writer."""
    command = typer.main.get_command(app)
    for each in command.commands.values():      # The first sentence, not 45 characters of it.
        each.short_help = " ".join((each.help or "").split("\n\n")[0].split())
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="i2i"), name="i2i",
                              title="Command line")
    # One page: a heading for each command, and headings within a command as bold text.
    text = re.sub(r"^#+ (`i2i.*`)$", r"## \1", text, flags=re.M)
    return re.sub(r"<(str|int|float|bool|choice)>", r"\1", re.sub(r"&lt;|&gt;", "", text))


def settings() -> str:
    """The page of all recipes and components with their options, as `i2i list` prints them."""
    def listed(*words: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            app.run(["list", *words])
        return f"```text\n{shown.getvalue().strip()}\n```\n"

    parts = ["# Settings\n\nEverything that can be chosen by `KEY=VALUE`, as `i2i list` prints it.\n",
             "## Presets\n", listed("preset"), "## Training\n", listed("train"), "## Data\n", listed("data")]
    for kind in registry.kinds():
        if kind not in ("preset", "callback"):
            parts += [f"## {kind}\n"] + [f"### {kind} {name}\n\n{listed(kind, name)}"
                                         for name in registry.names(kind)]
    return "\n".join(parts)


def python() -> str:
    """The page of the public API, whose docstrings mkdocstrings reads."""
    own = [name for name in i2i.__all__ if not name.startswith("_")]
    table = (ROOT / "docs" / "api.md").read_text().partition("## For plugins")[2]
    rows = re.findall(r"^\| `(i2i\.[\w.]+)` \| (.*) \|$", table, re.M)
    parts = ["# Python\n\nThe stable surface is described in [Python API](../api.md).\n"]
    parts += [f"::: i2i.{name}\n" for name in own] + ["## For plugins\n"]
    for module, names in rows:
        parts += [f"::: {module}.{name}\n" for name in re.findall(r"`(\w+)`", names)
                  if name not in own]
    return "\n".join(parts)


def on_files(files: Files, config: Any) -> Files:
    """Add the references and the pages that lie beside the folder."""
    for name in BESIDE:
        text = (ROOT / name).read_text().replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    for name, write in {"cli": command_line, "settings": settings, "python": python}.items():
        files.append(File.generated(config, f"reference/{name}.md", content=write()))
    return files


def imports() -> str:
    """The picture of docs/layout.toml as SVG; the page itself has it in Mermaid, which needs a script."""
    edges = [(lower, higher, False) for higher, lower in direct(read())]
    nodes = {name: Node(name) for edge in edges for name in edge[:2]}
    return f'<div class="wide">{picture([("", nodes, edges)])}</div>\n'.replace("\n<", "<")


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """Links that work on the site, where pages beside the folder are in it; and Mermaid as SVG."""
    markdown = re.sub(r"^```mermaid\n.*?^```$", lambda _: imports(), markdown, flags=re.M | re.S)
    return re.sub(r"\]\(((?:\.\./)*)\.\./([A-Z]+\.md)", lambda link: f"]({link[1]}{link[2]}"
                  if link[2] in BESIDE else link[0], markdown)
