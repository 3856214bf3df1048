"""Presets beside each other on the same pictures for equal CPU time: Fréchet distance, precision and recall
of what each generates.

    python bench/presets.py --minutes 7 --out runs/presets            # resumes: runs that are there are not
trained again

Each is trained on one thread until its process has used that much CPU time, is interrupted (which saves), and
generates as many images as it learned from; they are judged against those with the features of
EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NARROW = "generator.width=32 discriminator.width=32"
PRESETS = {"dcgan": NARROW, "wgan-gp": NARROW, "sngan": NARROW, "r3gan": NARROW,
           "stylegan2": "generator.width=16 discriminator.width=16"}
ONE = {**os.environ, "OMP_NUM_THREADS": "1"}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(preset: str, words: str, data: str, minutes: float, out: Path) -> None:
    command = [sys.executable, "-m", "i2i.cli", "train", *preset.split(), *words.split(),
               "train.images=100M", "train.checkpoint_every=20k", "train.log_every=2k",
               "--data", data, "--out", str(out), "--device", "cpu"]
    with (out.parent / f"{out.name}.log").open("w") as log:
        process = subprocess.Popen(command, env=ONE, stdout=log, stderr=log)
        while process.poll() is None and cpu_seconds(process.pid) < 60 * minutes:
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        if process.wait() not in (130, 0):
            raise SystemExit((out.parent / f"{out.name}.log").read_text())


def judged(run: Path, data: str, n: int, words: tuple[str, ...] = ()) -> dict[str, float]:
    fake, told = run / "made", run / "judged.json"
    i2i = [sys.executable, "-m", "i2i.cli"]
    subprocess.run([*i2i, "generate", str(run), "--n", str(n), "--out", str(fake), "--device", "cpu",
                    *words], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*i2i, "evaluate", "--real", data, "--fake", str(fake), "--features",
                    "efficientnet-lite0", "--metrics", "fd,precision_recall",
                    "--json", str(told), "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
    return {name: figure["value"] for name, figure in json.loads(told.read_text())["results"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--data", default="fluent3d-64")
    parser.add_argument("--n", type=int, default=1600)
    parser.add_argument("--out", type=Path, default=Path("runs/presets"))
    parser.add_argument("--only", nargs="*", default=list(PRESETS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for preset in options.only:
        run = options.out / preset.replace(" ", "-")
        if not (run / "config.json").exists():
            train(preset, PRESETS.get(preset, NARROW), options.data, options.minutes, run)
        images = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["images"]
        rows.append((preset, images, judged(run, options.data, options.n)))
        print(rows[-1], flush=True)
    print(f"{options.minutes:g} CPU minutes each, one thread; {options.n} generated images against "
          f"{options.data}")
    for preset, images, figures in sorted(rows, key=lambda row: row[2]["fd_efficientnet_lite0"]):
        print(f"{preset:14} {images:>9,} images  "
              + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
