"""The layout of the package: imports go one way, files and functions stay short, and the docs show the same table."""

import ast
import functools
import runpy
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "i2i"
LAYOUT = tomllib.loads((ROOT / "docs" / "layout.toml").read_text())
ORDER = list(LAYOUT)
STANDARD = set(sys.stdlib_module_names) | {"__future__"}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> list[str]:
    """Every module a file imports, also inside functions; ours as `i2i.package[.module]`."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found += [f"i2i.{alias.name}" for alias in node.names] if node.module == "i2i" else [node.module]
    return found


def module_imports(path: Path) -> set[str]:
    """Modules of ours that are imported when the file is, as dotted names of files."""
    found = set()
    for node in tree(path).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("i2i"):
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                if (ROOT / (name.replace(".", "/") + ".py")).exists():
                    found.add(name)
    return found


def cycle_through(graph: dict[str, set[str]]) -> list[str]:
    """A path that comes back to where it began, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> list[str]:
        if node in path:
            return [*path[path.index(node):], node]
        if node not in done:
            for other in sorted(graph.get(node, ())):
                if found := visit(other, (*path, node)):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, ()))), [])


def allowed(package: str, module: str) -> bool:
    """Whether the row of a package of ours lists a module."""
    row, parts = LAYOUT[package], module.split(".")
    if parts[0] == "i2i":
        return parts[1:2] in ([], [package], *([other] for other in row["imports"]))
    return parts[0] in STANDARD or parts[0] in row["external"]


def test_a_package_imports_only_what_its_row_allows() -> None:
    assert [f"{path.relative_to(ROOT)} imports {module}" for path in FILES for module in imports(path) if not allowed(package_of(path), module)] == []
    assert not allowed("files", "i2i.data.config")
    assert not allowed("files", "torch")


def test_the_table_lists_the_packages_that_are_there_and_each_imports_only_lower_ones() -> None:
    there = {package_of(path) for path in FILES}
    assert there == set(ORDER)
    assert len(ORDER) <= 20
    for package, row in LAYOUT.items():
        assert [other for other in row["imports"] if ORDER.index(other) >= ORDER.index(package)] == [], package


def test_no_right_to_import_goes_unused_and_there_are_at_most_ninety_arrows() -> None:
    used = {(package_of(path), module.split(".")[1]) for path in FILES for module in imports(path) if module.startswith("i2i.")}
    unused = [(package, other) for package, row in LAYOUT.items() for other in row["imports"] if (package, other) not in used]
    assert unused == []
    assert sum(len(row["imports"]) for row in LAYOUT.values()) <= 90


def test_no_modules_import_each_other() -> None:
    graph = {"i2i." + path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): module_imports(path) for path in FILES}
    assert cycle_through(graph) == []
    assert cycle_through({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_the_page_shows_this_table() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "layout.py"))
    assert (ROOT / "docs" / "architecture.md").read_text() == page["write"](), "run: python docs/layout.py"
    assert all(f"| `{name}` |" in page["section"]() for name in ORDER)


def test_files_and_functions_are_short() -> None:
    assert [path for path in FILES if path.read_text().count("\n") > 300] == []
    functions = [(path, node) for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f"{path.relative_to(ROOT)}:{node.lineno} {node.name}" for path, node in functions if node.end_lineno - node.lineno >= 50] == []


def test_loose_modules_are_few_and_no_file_is_called_utils() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert loose <= {"errors", "registry", "config", "seeding", "files"}
    assert not {path.stem for path in FILES} & {"utils", "util", "helpers", "common", "core", "misc"}


def test_nothing_changes_the_warnings_of_the_whole_process_for_a_moment() -> None:
    """`warnings.catch_warnings` restores what another thread has set meanwhile."""
    assert not [path.name for path in FILES if "catch_warnings" in path.read_text()]
