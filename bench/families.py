"""The families beside each other on the same pictures for equal CPU time: two judges, recall, bits per
dimension, time per sample and peak memory, as a table and a sheet of what each makes.

    python bench/families.py --data peeps-64.zip --real peeps-64.zip/test --minutes 20 --out runs/families
    python bench/families.py --data peeps-64.zip --real peeps-64.zip/test --only vae "diffusion min_snr=5"
    python bench/families.py --data openmoji-64 --real openmoji-64/test --only pix2pix palette bbdm
    python bench/families.py --data FOLDER --minutes 0.1 --n 24 --size 16 --width 4     # a trial

The same command continues: what is trained and measured is not trained again.  Each is trained on one thread
until its process has used that much CPU time, evaluations included, and is then interrupted, which saves.
`--n` images of the averaged model are judged against `--real`, by the features of open-nsfw and of a random
network, with which none was trained; of recipes of pairs, the translations of the test split.  Bits per
dimension are those of `--real`, at the size that is learned.  The time of a sample is CPU time within one
batch of 16; memory is the peak of the whole training process, libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from i2i import load
from i2i.data.image_set import open_image_set

ONE = {**os.environ, "OMP_NUM_THREADS": "1"}
CLI = [sys.executable, "-m", "i2i.cli"]
# What is trained, with these settings; those without a value are --width.
FAMILIES = {"dcgan": "generator.width discriminator.width",
            "stylegan2": "generator.width=16 discriminator.width=16",
            "vae": "generator.width encoder.width",
            "flow": "network.width network.couplings=3",
            "autoregressive": "network.width network.blocks=1 network.block=gated",
            "diffusion": "denoiser.width",
            "rectified-flow": "denoiser.width"}
PAIRED = {"pix2pix": "generator.width discriminator.width", "palette": "denoiser.width",
          "bbdm": "denoiser.width"}
JUDGES = ("open-nsfw", "random")
SHOWN, GAP, BATCH = 12, 2, 16


def words_of(family: str, width: int) -> list[str]:
    """The recipe and settings of a family; what follows its name on the command line comes last."""
    name, *more = family.split()
    own = (FAMILIES | PAIRED).get(name, "")
    settings = [word if "=" in word else f"{word}={width}" for word in own.split()]
    return [name, *settings, *more]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(words: list[str], minutes: float, run: Path) -> dict[str, float]:
    """Train until the time is used; CPU minutes and peak memory of the process, in GB."""
    command = [*CLI, "train", *words, "data.flip=false", "train.images=100M", "train.log_every=500",
               "train.checkpoint_every=20k", "--out", str(run), "--device", "cpu"]
    told = run.parent / f"{run.name}.log"
    with told.open("w") as log:
        process = subprocess.Popen(command, env=ONE, stdout=log, stderr=log)
        used = 0.0
        ended = os.WEXITED | os.WNOWAIT | os.WNOHANG        # Not reaped: wait4 below counts its time.
        while used < 60 * minutes and os.waitid(os.P_PID, process.pid, ended) is None:
            time.sleep(0.2)
            used = cpu_seconds(process.pid)
        os.kill(process.pid, signal.SIGINT)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (130, 0) or not run.exists():
        raise SystemExit(f"{told.read_text()}nothing was trained; more --minutes?")
    return {"minutes": (usage.ru_utime + usage.ru_stime) / 60, "memory": usage.ru_maxrss / 2**20}


def sample_seconds(run: str) -> None:
    """Print the CPU time of a sample, in a process of its own."""
    torch.set_num_threads(1)
    model = load(run, device="cpu")
    make: Callable[[], object] = partial(model.generate, BATCH, batch_size=BATCH)
    if model.recipe.sources:
        make = partial(model, torch.zeros(BATCH, model.formats["a"].channels, *model.header["info"]["size"]))
    make()
    start = time.process_time()
    make()
    print((time.process_time() - start) / BATCH)


def run_cli(*words: object) -> None:
    done = subprocess.run([*CLI, *map(str, words), "--device", "cpu"], env=ONE, capture_output=True,
                          text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def measure(run: Path, real: str, n: int) -> dict[str, float]:
    """All figures of a trained run."""
    made, told = run / "made", run / "judged.json"
    judged = ["--features", ",".join(JUDGES), "--json", told, "--metrics"]
    if load(run, "cpu").recipe.sources:
        run_cli("evaluate", run, *judged, "kid,precision_recall,l1", "--sheet", run / "sheet.png")
        run_cli("translate", run, real, "--half", "left", "--out", made)
    else:
        run_cli("generate", run, "--n", n, "--out", made)
        run_cli("evaluate", "--real", real, "--fake", made, *judged, "kid,precision_recall")
    figures = {name: found["value"] for name, found in json.loads(told.read_text())["results"].items()}
    if load(run, "cpu").recipe.family.density != "none":
        run_cli("score", run, real, "--json", told)
        figures["bits"] = json.loads(told.read_text())["images"]["mean"]
    timed = subprocess.run([sys.executable, __file__, "--time", run], env=ONE, check=True,
                           capture_output=True, text=True)
    figures["seconds"] = float(timed.stdout)
    log = (run / "log.jsonl").read_text().splitlines()
    return figures | {"images": json.loads(log[-1])["images"] if log else 0}


COLUMNS = {"images": "images seen", "kid_open_nsfw": "KID, open-nsfw", "kid_random": "KID, random",
           "recall_open_nsfw": "recall, open-nsfw", "recall_random": "recall, random", "l1": "L1",
           "bits": "bits/dim", "seconds": "s per sample", "memory": "peak memory, GB"}


def find(figures: dict[str, float], key: str) -> float | None:
    """A figure; the first judge's recall has no name of a network."""
    return figures.get(key, figures.get(key.removesuffix("_open_nsfw")))


def table(rows: dict[str, dict[str, float]]) -> str:
    lines = ["| |" + "|".join(f" {title} " for title in COLUMNS.values()) + "|",
             "|---" * (len(COLUMNS) + 1) + "|"]
    for name, figures in rows.items():
        values = [find(figures, key) for key in COLUMNS]
        cells = [" – " if value is None else f" {value:,.0f} " if key == "images" else f" {value:.3g} "
                 for key, value in zip(COLUMNS, values, strict=True)]
        lines.append(f"| `{name}` |" + "|".join(cells) + "|")
    return "\n".join(lines) + "\n"


def sheet(runs: list[Path], path: Path) -> None:
    """A row of generated images for each run."""
    rows = [[np.asarray(Image.open(file).convert("RGB"))
             for file in sorted((run / "made").rglob("*.png"))[:SHOWN]] for run in runs]
    height, width = rows[0][0].shape[:2]
    whole = np.full((len(rows) * (height + GAP) + GAP, SHOWN * (width + GAP) + GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = GAP + i * (height + GAP), GAP + j * (width + GAP)
            whole[y:y + height, x:x + width] = image
    Image.fromarray(whole).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fluent3d-64", help="what is learned: its train split, or all")
    parser.add_argument("--real", help="what is judged against; by default DATA")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--n", type=int, default=480)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    parser.add_argument("--only", nargs="*", default=list(FAMILIES), metavar="'FAMILY SETTING ...'")
    parser.add_argument("--time", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.time:
        return sample_seconds(options.time)
    real = options.real or options.data
    print(f"{len(open_image_set(real, '--real')):,} images to judge against", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    rows, runs = {}, []
    for family in options.only:
        run = options.out / family.replace(" ", "-")
        saved = run.parent / f"{run.name}.json"
        if not saved.exists():
            spent = train([*words_of(family, options.width), f"data.size={options.size}", "--data",
                           options.data], options.minutes, run)
            figures = spent | measure(run, real, options.n)
            saved.write_text(json.dumps(figures))
        rows[family] = json.loads(saved.read_text())
        runs.append(run)
        print(family, rows[family], flush=True)
        (options.out / "table.md").write_text(table(rows))
        sheet(runs, options.out / "sheet.png")
    print((options.out / "table.md").read_text())


if __name__ == "__main__":
    main()
