"""Train a bundled model, store it in half precision and describe it.

    python weights/build.py personas-color                      # trains in runs/personas-color, or continues
    python weights/build.py personas-color --run runs/other     # stores the model of a finished run

Writes NAME.safetensors, its card NAME.md with a sheet, and its entry in catalog.json to weights/models.  The
figures are those of the stored file on the test split, which training never sees; if one differs from that
of the run by more than a hundredth, and a tenth of its interval, nothing is written.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from i2i import JobError, Model, load
from i2i.cli import app
from i2i.cli.data import LICENSES
from i2i.data.sources import bundled_datasets, image_names, open_source
from i2i.errors import I2IError
from i2i.images.format import Array
from i2i.inference import explore
from i2i.inference.bundled_models import models_folder
from i2i.inference.model_file import find_model
from i2i.metrics.weights import sha256
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training.plan import command
from i2i.training.resume import reopen_job

MAX_BYTES = 12_000_000
JUDGES = "efficientnet-lite0,open-nsfw"
COLUMNS = 12            # Images of a class on the sheet of a generator.
COLORS = 256            # Of a sheet, which so takes a third of the bytes.
TITLES = {"ab": "Input, result, target of test images", "ba": "The other way: input, result, target",
          "noise": "A row for each class, unselected"}
# Name: what is trained, on which data, what it does, how it is used.
MODELS = {
    "personas-color": (
        "pix2pix-drawings generator.width=16 discriminator.width=16 train.images=100k "
        "train.checkpoint_every=10k train.precision=bf16 train.threads=1",
        "personas-edges-64", "outlines of drawn people to color",
        "i2i translate personas-color sketch.png --out colored/"),
    "lorelei-hair": (
        "cyclegan generator=unet generator.width=16 generator.depth=4 generator.norm=instance "
        "generator.dropout=0 generator.up=resize generator.input_skip=16 discriminator.width=32 "
        "discriminator.layers=2 data.load_size=64 train.batch_size=4 g_optimizer.lr=5e-4 d_optimizer.lr=5e-4 "
        "train.ema_half_life=1k train.images=16k train.checkpoint_every=4k augment=diffaugment "
        "augment.policy=translation train.threads=1",
        "lorelei-hair-64", "dark hair of drawn people to red, and back with --direction ba",
        "i2i translate lorelei-hair people/ --out red/"),
    "peeps": (
        "msgan data.flip=false train.images=300k train.checkpoint_every=50k train.precision=bf16 "
        "train.threads=1",
        "peeps-64", "drawn people of eight classes, from noise", "i2i generate peeps --n 64 --out made/")}

Figures = dict[str, dict[str, dict[str, Any]]]      # By direction ("ab", "ba", "noise") and name.


def run_command(*words: object) -> None:
    """Run an `i2i` command in this process.  JobError if it fails."""
    print("i2i", *words, flush=True)
    if app.run([str(word) for word in words]):
        raise JobError(f"i2i {words[0]} failed")


def measure(file: Path, data: str, folder: Path) -> Figures:
    """The figures of a model on the test split; its sheets are written to a folder."""
    model, result = load(file), folder / "figures.json"
    if not model.directions:
        made = folder / f"made-{file.stem}"
        run_command("generate", file, "--n", len(image_names(open_source(f"{data}/test"))), "--out", made)
        run_command("evaluate", "--real", f"{data}/test", "--fake", made, "--metrics",
                    "kid,precision_recall", "--features", JUDGES, "--json", result)
        Image.fromarray(class_sheet(model)).save(folder / "noise.png")
        results = json.loads(result.read_text())["results"]
        return {"noise": {name: figure for name, figure in results.items() if not name.startswith("f1")}}
    found: Figures = {}
    for direction in model.directions:
        run_command("evaluate", file, "--data", data, "--direction", direction, "--metrics",
                    "l1,psnr,ssim,kid", "--features", JUDGES, "--sheet", folder / f"{direction}.png",
                    "--json", result)
        outcome = json.loads(result.read_text())
        copied = outcome["scores"]["copy the input"]
        found[direction] = {name: figure | {"copy": copied[name]}
                            for name, figure in outcome["results"].items()}
    return found


def class_sheet(model: Model) -> Array:
    """A row of images for each class."""
    return explore.sheet([list(model.generate(COLUMNS, labels=label, seed=1))
                          for label in range(len(model.classes))])


def check_equal(stored: Figures, trained: Figures) -> None:
    """JobError if a figure of the stored model is not that of the trained one."""
    for direction, figures in trained.items():
        for name, figure in figures.items():
            width = figure.get("high", 0) - figure.get("low", 0)
            found = stored[direction][name]["value"]
            if abs(found - figure["value"]) > max(0.01 * abs(figure["value"]), 0.1 * width):
                raise JobError(f"{direction} {name}: {found:.4g} in half precision, {figure['value']:.4g} "
                               "in single")


def table(scores: dict[str, dict[str, Any]]) -> list[str]:
    """The figures of a direction as the lines of a Markdown table."""
    copied = any("copy" in score for score in scores.values())
    heads = ["test split", "model", *(["copy the input"] if copied else []), "95 % interval", "better"]
    rows = [heads, ["---"] * len(heads)]
    for name, score in scores.items():
        interval = f"{score['low']:.4g} … {score['high']:.4g}" if "low" in score else ""
        rows.append([name, f"{score['value']:.4g}", *([f"{score['copy']:.4g}"] if copied else []), interval,
                     score.get("better", "")])
    return [f"| {' | '.join(row)} |" for row in rows]


def card(name: str, figures: Figures, facts: dict[str, str], license_text: str) -> str:
    """The model card, in Markdown."""
    purpose = facts["purpose"][0].upper() + facts["purpose"][1:]
    lines = [f"# {name}", "", f"{purpose}: `{facts['usage']}`", ""]
    for direction, scores in figures.items():
        lines += [f"![{TITLES[direction]}]({sheet_name(name, direction)})", "", f"*{TITLES[direction]}.*", "",
                  *table(scores), ""]
    lines += ["## Made by", "", "```", facts["command"],
              f"python weights/build.py {name} --run RUN", "```", "",
              f"Seed {facts['seed']}, {facts['images']} images seen, i2i {facts['i2i']}. {facts['picked']} "
              f"{facts['size']} in half precision, sha256 `{facts['sha256']}`.", "",
              "## Data and license", "", f"Trained on `{facts['data']}`; the model is under the license of "
              f"these data, {facts['license']}:", "",
              *(f"> {line}" for line in license_text.strip().splitlines()), ""]
    return "\n".join(lines)


def sheet_name(name: str, direction: str) -> str:
    """The file of the sheet of a direction."""
    return f"{name}-ba.png" if direction == "ba" else f"{name}.png"


def summary(figures: Figures) -> str:
    """The figures as a line for `i2i models`."""
    parts = []
    for direction, scores in figures.items():
        values = [f"{key} {score['value']:.3g}"
                  + (f" (a copy of the input: {score['copy']:.3g})" if key == "psnr" else "")
                  for key, score in scores.items() if key in ("psnr", "ssim") or key.startswith("kid")]
        parts.append((f"{direction}: " if len(figures) > 1 else "") + ", ".join(values))
    return f"test split: {'; '.join(parts)}"


def build(name: str, run: Path) -> None:
    """Store and describe the model of a finished run."""
    _, data, purpose, usage = MODELS[name]
    text = bundled_datasets()[data].with_name(f"LICENSE-{data}.txt").read_text()
    job, folder = replace(reopen_job(RunFolder(run)), location=data), models_folder()
    trained = find_model(f"{run}@best") if RunFolder(run).best.exists() else find_model(run)
    tensors, header = checkpoint.load(trained, "model")
    picked = header.get("picked_on")
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch, f"{name}.safetensors")
        checkpoint.save(stored, checkpoint.in_half(tensors), {**header, "data": data})
        if stored.stat().st_size > MAX_BYTES:
            raise JobError(f"{name} takes {stored.stat().st_size:,} bytes; accepted: {MAX_BYTES:,}")
        before, figures = measure(trained, data, Path(scratch)), measure(stored, data, Path(scratch))
        check_equal(figures, before)
        facts = {"sha256": sha256(stored), "purpose": purpose, "data": data,
                 "license": ", ".join(each for each in LICENSES if each in text),
                 "figures": summary(figures), "usage": usage}
        shutil.copy(stored, folder / stored.name)
        for direction in figures:
            sheet = Image.open(Path(scratch, f"{direction}.png"))
            sheet.quantize(COLORS).save(folder / sheet_name(name, direction), optimize=True)
    catalog = folder / "catalog.json"
    known = json.loads(catalog.read_text()) if catalog.exists() else {}
    catalog.write_text(json.dumps(dict(sorted((known | {name: facts}).items())), indent=1) + "\n")
    facts |= {"command": str(command(job)), "seed": str(job.train.seed), "images": f"{header['images']:,}",
              "size": f"{(folder / stored.name).stat().st_size / 1e6:.1f} MB", "i2i": str(header["i2i"]),
              "picked": f"The best checkpoint by its {picked} images." if picked else "The last checkpoint."}
    (folder / f"{name}.md").write_text(card(name, figures, facts, text))
    print(f"{folder / stored.name}, {facts['size']}; {facts['figures']}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(MODELS))
    parser.add_argument("--run", type=Path, help="a finished run; by default runs/NAME, trained first")
    options = parser.parse_args()
    words, data, _, _ = MODELS[options.name]
    run = options.run or Path("runs", options.name)
    try:
        if options.run is None:
            run_command("train", *words.split(), "--data", data, "--out", run)
        build(options.name, run)
    except I2IError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
