"""Seconds and memory from a folder of many files to the first batch: python bench/listing.py [--count 200000]
[--few 20000]

Peak: how much the process grew at most beyond what it held after its imports.  Worker: what one loader
process has written to (not shared). The files are hard links of one picture of 32x32, so what is measured is
the listing, not the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

LINKS = 60_000          # To one file; ext4 allows 65,000.
LAYOUTS = {
    "one folder": ("images", "{i:07}.png"), "1,000 class folders": ("images", "{c:04}/{i:07}.png"),
    "trainA trainB": ("paired", "train{s}/{h:07}.png")}


def names(layout: str, count: int) -> list[str]:
    return [LAYOUTS[layout][1].format(i=i, c=i % 1000, s="AB"[i % 2], h=i // 2) for i in range(count)]


def make(folder: Path, layout: str, count: int) -> None:
    picture = Image.fromarray(np.full((32, 32, 3), 128, np.uint8))
    for i, name in enumerate(names(layout, count)):
        path = folder / name
        if i % LINKS == 0:
            source = folder.with_name(f"{folder.name}-{i}.png")
            picture.save(source)
        if i < 2000:
            path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, path)


def pack(folder: Path, layout: str, count: int) -> Path:
    data = folder.with_name(f"{folder.name}-0.png").read_bytes()
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for name in names(layout, count):
            archive.writestr(name, data)
    return folder.with_suffix(".zip")


def memory(key: str, pid: int | str = "self") -> float:
    """MB of one entry of a process's status or memory map."""
    file = "status" if key.startswith("Vm") else "smaps_rollup"
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/{file}").read_text().splitlines()
                if line.startswith(key)) / 1000


def measure(where: str, kind: str, index: bool) -> dict[str, float]:
    """In a process of its own: from the path to the first batch of two loader processes."""
    import multiprocessing

    from i2i.data import labeled, unpaired  # noqa: F401 - registers them.
    from i2i.data.config import DataConfig
    from i2i.data.format_detection import inspect_dataset, training_sizes
    from i2i.data.loader import batches
    from i2i.data.sources import open_source
    from i2i.registry import Spec, build
    Path("/proc/self/clear_refs").write_text("5")       # The peak begins anew.
    before, began = memory("VmRSS"), time.monotonic()
    split = build("dataset", Spec(kind), open_source(where, index=index), "ab")["train"]
    listed, summary = time.monotonic() - began, inspect_dataset(split)
    crop, load = training_sizes(DataConfig(), split, summary)
    stream = batches(split.for_training(crop, load, (summary.a, summary.b)), start=0, batch_size=16, num_workers=2)
    next(stream)
    first = time.monotonic() - began
    for _ in range(200):
        next(stream)
    return {"listed s": listed, "first batch s": first, "peak MB": memory("VmHWM") - before,
            "holds MB": memory("VmRSS") - before,
            "worker MB": max(memory("Private_Dirty", child.pid or 0)
                             for child in multiprocessing.active_children())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--few", type=int, default=20_000)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        where, kind, index = options.measure
        print(json.dumps(measure(where, kind, index == "index")))
        return
    with tempfile.TemporaryDirectory(prefix="i2i-") as base:
        for layout, (kind, _) in LAYOUTS.items():
            for count in (options.few, options.count):
                folder = Path(base) / f"{kind}-{layout.split()[0].replace(',', '')}-{count}"
                folder.mkdir()
                make(folder, layout, count)
                wheres = {"folder": folder} | ({"zip": pack(folder, layout, count)} if layout == "one folder"
                                               else {})
                for how, where in wheres.items():
                    for index in ("no index", "index", "index"):        # The second time it is there.
                        out = subprocess.run([sys.executable, __file__, "--measure", where, kind, index],
                                             capture_output=True, text=True, check=True)
                        told = json.loads(out.stdout.splitlines()[-1])
                        print(f"{count:>8,} {layout:<20} {how:<7} {index:<9}",
                              *(f"{value:7.2f} {key}" for key, value in told.items()), flush=True)


if __name__ == "__main__":
    main()
