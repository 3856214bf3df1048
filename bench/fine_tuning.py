"""Fine-tuning beside training from scratch, on a tenth of the images of other classes.

    python bench/fine_tuning.py --out runs/fine-tuning

`fluent3d-64` is split by class: sngan learns five of its eight classes, and every tenth image of the other
three is learned from scratch and with --init.  The models of both runs' checkpoints are judged against
all images of the three classes.  Runs that are there are not trained again.
"""

import argparse
import json
import zipfile
from pathlib import Path

from PIL import Image

from i2i.cli import app
from i2i.data.sources.factory import bundled_datasets

OTHER = ("activities", "food-drink", "travel-places")
WORDS = ("generator.width=16", "discriminator.width=16", "augment=diffaugment", "on_collapse=off")


def split(out: Path, size: int) -> None:
    """Write the five classes to `known`, the other three to `other` and a tenth of those to `few`."""
    with zipfile.ZipFile(bundled_datasets()["fluent3d-64"]) as source:
        names = sorted(name for name in source.namelist() if name.endswith(".png"))
        other = [name for name in names if name.partition("/")[0] in OTHER]
        for folder, chosen in (("known", set(names) - set(other)), ("other", other), ("few", other[::10])):
            for name in chosen:
                path = out / folder / name.replace("/", "-")
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.open(name) as file, Image.open(file) as image:
                    image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS).save(path)


def run(*words: object) -> None:
    """Run a command line in this process."""
    if code := app.run([str(word) for word in words]):
        raise SystemExit(code)


def train(out: Path, name: str, data: str, images: int, every: int, *words: object) -> None:
    """Train unless it is done."""
    run("train", "sngan", *WORDS, f"images={images}", f"train.checkpoint_every={every}",
        "train.keep_models=every", "--data", out / data, "--out", out / name, "--device", "cpu", *words)


def judged(out: Path, name: str, images: int, n: int, features: str) -> dict[str, float]:
    """The scores of the model of a checkpoint."""
    made, file = out / f"{name}-{images}.zip", out / f"{name}-{images}.json"
    if not file.exists():
        run("generate", f"{out / name}@{images}", "--n", n, "--out", made, "--device", "cpu")
        run("evaluate", "--real", out / "other", "--fake", made, "--features", features,
            "--metrics", "fd,kid", "--bootstrap", 0, "--json", file, "--device", "cpu")
    return {key: figure["value"] for key, figure in json.loads(file.read_text())["results"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=32, help="height and width of images")
    parser.add_argument("--known", type=int, default=16_000, help="images of the first training")
    parser.add_argument("--images", type=int, default=9_600, help="images of the two others")
    parser.add_argument("--every", type=int, default=1_600, help="images between judged models")
    parser.add_argument("--n", type=int, default=200, help="images that are judged")
    parser.add_argument("--features", default="efficientnet-lite0,random")
    parser.add_argument("--out", type=Path, default=Path("runs/fine-tuning"))
    options = parser.parse_args()
    out = options.out
    if not (out / "few").exists():
        split(out, options.size)
    train(out, "first", "known", options.known, options.known)
    train(out, "scratch", "few", options.images, options.every)
    train(out, "tuned", "few", options.images, options.every, "--init", out / "first")
    rows = {name: {images: judged(out, name, images, options.n, options.features)
                   for images in range(options.every, options.images + 1, options.every)}
            for name in ("scratch", "tuned")}
    for key in rows["scratch"][options.images]:
        best = min(row[key] for row in rows["scratch"].values())
        reached = next((images for images, row in rows["tuned"].items() if row[key] <= best), None)
        print(f"{key}: " + "; ".join(f"{name} " + " ".join(f"{row[key]:.4g}" for row in of_run.values())
                                     for name, of_run in rows.items())
              + f"; the best of scratch, {best:.4g}, is reached after {reached} images")


if __name__ == "__main__":
    main()
