"""Seconds and memory of listing many files, and of the simpler ways to hold their names.

    python bench/listing.py [--count 200000]        from a path to the first batch of two loader workers
    python bench/listing.py --names --count 1000000 `list[str]` and FileList, an open `ZipFile` and Zip

The files are hard links to one 32x32 image, so this measures the listing, not the disk.  "peak" and "held":
growth of the process over its size after the imports.  "worker": memory that one loader worker has written
to, so that it is no longer shared with its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

MAX_LINKS = 60_000      # To one file; ext4 allows 65,000.
LAYOUTS = {
    "one folder": ("images", "{i:07}.png"), "1,000 class folders": ("images", "{c:04}/{i:07}.png"),
    "trainA trainB": ("paired", "train{s}/{h:07}.png")}
HOLDERS = ("folder, list[str]", "folder, FileList", "zip, zipfile kept open", "zip, Zip")
NAMES, READS = 200_000, 20_000      # What a worker uses of them, at random.


def names(layout: str, count: int) -> list[str]:
    return [LAYOUTS[layout][1].format(i=i, c=i % 1000, s="AB"[i % 2], h=i // 2) for i in range(count)]


def make(folder: Path, layout: str, count: int) -> None:
    image = Image.fromarray(np.full((32, 32, 3), 128, np.uint8))
    for i, name in enumerate(names(layout, count)):
        path = folder / name
        if i % MAX_LINKS == 0:
            original = folder.with_name(f"{folder.name}-{i}.png")
            image.save(original)
        if i < 2000:
            path.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, path)


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


def reset_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def first_batch(where: str, kind: str) -> dict[str, float]:
    """In a process of its own: from the path to the first batch of two loader workers."""
    import multiprocessing

    from i2i.data import labeled, unpaired  # noqa: F401 - registers them.
    from i2i.data.config import DataConfig
    from i2i.data.format_detection import inspect_dataset, training_sizes
    from i2i.data.loader import batches
    from i2i.data.sources import open_source
    from i2i.registry import Spec, build
    before, start = reset_peak(), time.monotonic()
    split = build("dataset", Spec(kind), open_source(where), "ab")["train"]
    listed, summary = time.monotonic() - start, inspect_dataset(split)
    crop, load = training_sizes(DataConfig(), split, summary)
    dataset = split.for_training(crop, load, (summary.a, summary.b))
    stream = batches(dataset, start=0, batch_size=16, num_workers=2)
    next(stream)
    first = time.monotonic() - start
    for _ in range(200):
        next(stream)
    workers = [memory("Private_Dirty", child.pid or 0) for child in multiprocessing.active_children()]
    return {"listed s": listed, "first batch s": first, "peak MB": memory("VmHWM") - before,
            "held MB": memory("VmRSS") - before, "worker MB": max(workers)}


def hold(where: str, holder: str) -> dict[str, float]:
    """In a process of its own: list the names one way, then use them in a forked worker."""
    from i2i.data.sources import Folder, Zip, is_image
    from i2i.data.sources.folder import walk
    before, start = reset_peak(), time.process_time()
    listed: Sequence[str]
    read: Callable[[str], bytes] | None = None
    if holder == "folder, list[str]":
        listed = sorted(walk(where, is_image))
    elif holder == "folder, FileList":
        listed = Folder(Path(where)).names()
    elif holder == "zip, Zip":
        source = Zip(Path(where))
        listed, read = source.files, source.read
    else:
        archive = zipfile.ZipFile(where)
        listed, read = sorted(member.filename for member in archive.infolist()), archive.read
    found = {"CPU s": time.process_time() - start, "peak MB": memory("VmHWM") - before,
             "held MB": memory("VmRSS") - before}
    receiver, sender = os.pipe()
    if not os.fork():
        order = np.random.default_rng(0).permutation(len(listed))[:NAMES].tolist()
        clean, start = memory("Private_Dirty"), time.process_time()
        for i in order:
            listed[i]
        used = {f"us a name of {NAMES:,}": (time.process_time() - start) / len(order) * 1e6}
        start = time.process_time()
        for i in random.Random(0).sample(order, min(READS, len(order))) if read else ():
            read(listed[i])
        used |= {f"us a read of {READS:,}": (time.process_time() - start) / READS * 1e6} if read else {}
        os.write(sender, json.dumps(used | {"worker MB": memory("Private_Dirty") - clean}).encode())
        os._exit(0)
    return found | json.loads(os.read(receiver, 1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--names", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        where, how = options.measure
        print(json.dumps(hold(where, how) if how in HOLDERS else first_batch(where, how)))
        return
    with tempfile.TemporaryDirectory(prefix="i2i-") as base:
        for layout, (kind, _) in list(LAYOUTS.items())[:1 if options.names else None]:
            folder = Path(base) / layout.replace(" ", "-").replace(",", "")
            folder.mkdir()
            make(folder, layout, options.count)
            jobs = [(folder, kind, "folder")]
            if layout == "one folder":
                archive = pack(folder, layout, options.count)
                jobs.append((archive, kind, "zip"))
                if options.names:
                    jobs = [(folder if how.startswith("folder") else archive, how, how) for how in HOLDERS]
            for where, how, label in jobs:
                out = subprocess.run([sys.executable, __file__, "--measure", where, how],
                                     capture_output=True, text=True, check=True)
                figures = json.loads(out.stdout.splitlines()[-1])
                print(f"{options.count:>9,} {layout:<20} {label:<23}",
                      *(f"{value:6.1f} {key}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
