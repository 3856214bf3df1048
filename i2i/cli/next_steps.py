"""What `i2i` alone says below its help: what to type next, by what is in the folder."""

import json
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

MAX_ENTRIES = 500           # Of a folder that are looked at.
MAX_OF_A_KIND = 3           # Lines about runs, data and models, each.
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
LAYOUTS = {"train", "trainA", "A", "images"}        # Folders that only a dataset has.
FIRST = ("i2i translate personas-color personas-edges-64/test --half left --out colored/",
         "a bundled model colors bundled outlines; i2i models lists others")


def find_work(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Run folders in a folder and its runs/, the newest before older ones; data; model files.

    Reads names and, of runs, config.json; nothing is imported for it.
    """
    entries = [folder] if _is_run(folder) else [folder, *_entries(folder), *_entries(folder / "runs")]
    runs = sorted((path for path in entries if _is_run(path)), key=_changed, reverse=True)
    return (runs, [path for path in entries if path not in runs and path.name != "runs" and _is_data(path)],
            [path for path in entries if path.suffix == ".safetensors"])


def next_steps(folder: Path) -> list[tuple[str, str]]:
    """Commands and what each is for: runs first, the newest before older ones, then data, then models."""
    runs, data, models = find_work(folder)
    steps = [(f"i2i report {_quote(run, folder)}", "this run has ended") if (run / "verdict.json").exists()
             else (f"i2i train --resume {_quote(run, folder)}", "this run goes on where it stopped")
             for run in runs[:MAX_OF_A_KIND]]
    steps += [(f"i2i data check {_quote(path, folder)}", "what is in it, and the command that trains on it")
              for path in data[:MAX_OF_A_KIND]]
    steps += [(f"i2i translate {_quote(path, folder)} IMAGES --out DIR",
               "or i2i generate, if it is from noise")
              for path in models[:MAX_OF_A_KIND]]
    return steps or [FIRST]


def print_next_steps(folder: Path) -> None:
    """Print them, aligned."""
    steps = next_steps(folder)
    width = max(len(command) for command, _ in steps)
    print("\nNext:")
    for command, purpose in steps:
        print(f"  {command:{width}}  # {purpose}")


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in islice(folder.iterdir(), MAX_ENTRIES) if path.name[0] != ".")
    except OSError:         # Not there, or not ours to read.
        return


def _is_run(path: Path) -> bool:
    try:
        return "recipe" in json.loads((path / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def _is_data(path: Path) -> bool:
    inside = list(_entries(path)) if path.is_dir() else []
    return path.suffix == ".zip" or any(
        entry.name in LAYOUTS or entry.suffix.lower() in IMAGES for entry in inside)


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def _quote(path: Path, folder: Path) -> str:
    return shlex.quote(str(path.relative_to(folder)))
