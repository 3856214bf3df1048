"""How well the families find defects when trained on sound images alone: AUROC with 95 % intervals.

    pip install --no-deps --target=elpv elpv-dataset        # CC BY-NC-SA 4.0: not for commercial use
    python bench/anomaly.py --data elpv/elpv_dataset/data --minutes 4 --out runs/anomaly

ELPV (Buerhop-Lutz et al. 2018, Deitsch et al. 2019): 2,624 gray images of solar cells.  Four fifths of those
that are sound for sure (probability of a defect 0) are learned, the rest is told from those that are
defective for sure (1): also of each type of cell alone, as the types look different.  Each family is trained
for the same CPU time on one thread, as in bench/families.py.  Beside them, the distance to the nearest image
learned (cosine, in the features of a network), and what needs no training: the size of the image as a PNG.
The same command continues.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import torch
from families import run_cli, train, words_of
from PIL import Image

from i2i import load
from i2i.images.convert import to_rgb, to_tensor
from i2i.images.format import ImageFormat
from i2i.metrics.detection import auroc
from i2i.metrics.feature_networks import load_extractor
from i2i.recipes.base import Reconstructs

FAMILIES = ("vae", "flow", "autoregressive", "dcgan")
NETWORKS = ("efficientnet-lite0", "random")
HELD_OUT, DEFECTS, TYPES = "sound", "defects", ("mono", "poly")
Scores = dict[str, dict[str, float]]        # Of each set, by file.


def split(data: Path, out: Path) -> None:
    """Copy sure cells to out/train, out/sound and out/defects, with their type in the name."""
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    sound = [row for row in rows if float(row[1]) == 0]
    order = np.random.default_rng(0).permutation(len(sound))
    held_out = {sound[i][0] for i in order[:len(sound) // 5]}
    for file, probability, kind in rows:
        if float(probability) not in (0, 1):
            continue
        name = DEFECTS if float(probability) else HELD_OUT if file in held_out else "train"
        (out / name).mkdir(parents=True, exist_ok=True)
        (out / name / f"{kind}-{Path(file).name}").write_bytes((data / file).read_bytes())


def small(path: Path, size: int) -> Image.Image:
    return Image.open(path).convert("L").resize((size, size), Image.Resampling.LANCZOS)


def scores_of(out: Path, of: object) -> Scores:
    """The scores by a function of a list of files."""
    return {name: dict(zip([file.name for file in files], map(float, of(files)), strict=True))   # type: ignore[operator]
            for name in (HELD_OUT, DEFECTS) if (files := sorted((out / name).iterdir()))}


def png_size(files: list[Path], size: int) -> list[int]:
    sizes = []
    for file in files:
        small(file, size).save(buffer := io.BytesIO(), "png")
        sizes.append(len(buffer.getvalue()))
    return sizes


def nearest(out: Path, network: str, size: int | None) -> Scores:
    """Cosine distances to the nearest image that was learned."""
    extractor = load_extractor(network)

    def features(files: list[Path]) -> torch.Tensor:
        images = [small(file, size) if size else Image.open(file).convert("L") for file in files]
        found = extractor.extract([to_rgb(np.asarray(image)) for image in images])[0]
        return torch.nn.functional.normalize(found, dim=1)

    learned = features(sorted((out / "train").iterdir()))
    return scores_of(out, lambda files: 1 - (features(files) @ learned.T).amax(1))


def reconstruction(run: Path, out: Path, size: int) -> Scores:
    """Mean squared errors of a VAE's reconstructions."""
    model = load(run, device="cpu")
    recipe = model.recipe
    assert isinstance(recipe, Reconstructs)

    @torch.inference_mode()
    def errors(files: list[Path]) -> torch.Tensor:
        images = torch.stack([to_tensor(np.asarray(small(file, size)), ImageFormat(1)) for file in files])
        made = [recipe.reconstruct(model.modules, {"b": batch}) for batch in images.split(64)]
        return (torch.cat(made) - images).square().mean((1, 2, 3))
    return scores_of(out, errors)


def family_scores(family: str, out: Path, size: int, width: int, minutes: float) -> Scores:
    """Train a family on sound cells unless it is trained, and score by `i2i score`."""
    run = out / family.replace(" ", "-")
    if not (run / "scores.json").exists():
        if not run.exists():
            train([*words_of(family, width), f"data.size={size}", "--data", str(out / "train")], minutes, run)
        run_cli("score", run, out / HELD_OUT, "--anomalies", out / DEFECTS, "--json", run / "scores.json")
    found = json.loads((run / "scores.json").read_text())
    return {HELD_OUT: found["images"]["each"], DEFECTS: found["anomalies"]["each"]}


def row(name: str, scores: Scores) -> str:
    cells = []
    for kind in ("", *TYPES):
        lower, higher = ([value for file, value in scores[each].items() if Path(file).name.startswith(kind)]
                         for each in (HELD_OUT, DEFECTS))
        cells.append("{:.3f} ({:.3f} to {:.3f})".format(*auroc(lower, higher)))
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of labels.csv and images/")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/anomaly"))
    parser.add_argument("--only", nargs="*", default=list(FAMILIES), metavar="'FAMILY SETTING ...'")
    options = parser.parse_args()
    out, size = options.out, options.size
    if not (out / DEFECTS).exists():
        split(options.data, out)
    print({each: len(list((out / each).iterdir())) for each in ("train", HELD_OUT, DEFECTS)})
    print("| | all | " + " | ".join(TYPES) + " |\n" + "|---" * (len(TYPES) + 2) + "|")
    print(row("size as PNG", scores_of(out, lambda files: png_size(files, size))), flush=True)
    for network in NETWORKS:
        for side in (None, size):
            scores = nearest(out, network, side)
            print(row(f"nearest by {network}, of {side or 300} px", scores), flush=True)
    for family in options.only:
        scores = family_scores(family, out, size, options.width, options.minutes)
        print(row(f"`{family}`", scores), flush=True)
        if family.startswith("vae"):
            scores = reconstruction(out / family.replace(" ", "-"), out, size)
            print(row(f"`{family}`, reconstruction", scores), flush=True)


if __name__ == "__main__":
    main()
