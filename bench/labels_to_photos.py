"""Photos from label maps, judged by a segmentation network (table 1 of Isola et al. 2017, on CamVid).

    python bench/labels_to_photos.py prepare CAMVID strips/         # photo|labels -> labels|photo, 128 pixels
    i2i train pix2pix --data strips/ ... --out runs/pix2pix
    i2i translate runs/pix2pix strips/test --half left --out made/pix2pix
    python bench/labels_to_photos.py score strips/ made/pix2pix made/spade

CAMVID is a folder of train, val and test with strips: a photo, and beside it its label map in the colors of
SegNet.  `score` trains a U-Net on the real training photos and has it segment the real test photos, which is
the most that a translation can reach, and each folder of translations.  Per-pixel accuracy, accuracy by class
and intersection over union are those of all pixels together, without unlabeled ones; intervals (95 %) by
drawing images again.  Frames of one drive follow each other, so they are too narrow for other streets.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.nets.unet import UNet

# Sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, cyclist; last, without a label.
COLORS = np.array([(128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
                   (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
                   (0, 0, 0)])
CLASSES = len(COLORS) - 1
EPOCHS, BATCH, RATE, DRAWS = 30, 8, 1e-3, 1000


def nearest_labels(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W), the class of the nearest color."""
    return np.abs(image[..., None, :].astype(int) - COLORS).sum(-1).argmin(-1)


def prepare(source: Path, target: Path, size: int) -> None:
    """Write labels|photo strips of size x size each as PNG; labels by the nearest color."""
    for path in sorted(source.glob("*/*.jpg")):
        strip = Image.open(path).convert("RGB")
        side = strip.width // 2
        photo = strip.crop((0, 0, side, strip.height)).resize((size, size), Image.Resampling.LANCZOS)
        labels = Image.fromarray(COLORS[nearest_labels(np.asarray(strip)[:, side:])].astype(np.uint8))
        both = Image.new("RGB", (2 * size, size))
        both.paste(labels.resize((size, size), Image.Resampling.NEAREST))
        both.paste(photo, (size, 0))
        out = target / path.parent.name / f"{path.stem}.png"
        out.parent.mkdir(parents=True, exist_ok=True)
        both.save(out)


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W), -1 to 1."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1) / 127.5 - 1


def read_strips(folder: Path) -> tuple[list[str], Tensor, Tensor]:
    """Names, photos (N, 3, H, W) and labels (N, H, W)."""
    paths = sorted(folder.glob("*.png"))
    strips = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    half = strips[0].shape[1] // 2
    return ([path.name for path in paths], torch.stack([to_tensor(strip[:, half:]) for strip in strips]),
            torch.stack([torch.from_numpy(nearest_labels(strip[:, :half])) for strip in strips]))


def train_segmenter(network: nn.Module, photos: Tensor, labels: Tensor) -> None:
    """Train a network whose outputs, times ten, are logits."""
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    steps = EPOCHS * (len(photos) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    order = torch.cat([torch.randperm(len(photos)) for _ in range(EPOCHS + 1)])
    for step in range(steps):
        rows = order[step * BATCH:][:BATCH]
        images, wanted = photos[rows], labels[rows]
        if step % 2:
            images, wanted = images.flip(-1), wanted.flip(-1)
        loss = F.cross_entropy(10 * network(images), wanted, ignore_index=CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"segmenter: step {step:,} of {steps:,}, loss {loss:.3f}", flush=True)


@torch.no_grad()
def confusions(network: nn.Module, photos: Tensor, labels: Tensor) -> np.ndarray:
    """(N, CLASSES, CLASSES): pixels of each image by true and by found class."""
    found = torch.cat([network(part).argmax(1) for part in photos.split(16)])
    both = (labels * CLASSES + found)[..., None]
    return np.stack([np.bincount(both[i][labels[i] < CLASSES].flatten().numpy(), minlength=CLASSES**2)
                     for i in range(len(labels))]).reshape(-1, CLASSES, CLASSES)


def scores(table: np.ndarray) -> np.ndarray:
    """Per-pixel accuracy, mean accuracy by class, mean intersection over union."""
    right, true, found = table.diagonal(), table.sum(1), table.sum(0)
    present = true > 0
    return np.array([right.sum() / table.sum(), (right / np.maximum(true, 1))[present].mean(),
                     (right / np.maximum(true + found - right, 1))[present].mean()])


def score(strips: Path, folders: list[Path], width: int, saved: Path | None) -> None:
    """Print a row for the real photos and for each folder of translations."""
    names, photos, labels = read_strips(strips / "test")
    torch.manual_seed(0)
    network = UNet(3, CLASSES, tuple(photos.shape[2:]), width=width, dropout=0, up="resize")
    if saved and saved.exists():
        network.load_state_dict(torch.load(saved, weights_only=True))
    else:
        train_segmenter(network, *read_strips(strips / "train")[1:])
        if saved:
            torch.save(network.state_dict(), saved)
    network.eval()
    print("| | per-pixel accuracy | accuracy by class | class IoU |\n|---|---|---|---|")
    for title in ["real photos", *folders]:
        if isinstance(title, Path):
            photos = torch.stack([to_tensor(np.asarray(Image.open(title / name).convert("RGB")))
                                  for name in names])
        tables = confusions(network, photos, labels)
        draws = np.random.default_rng(0).integers(len(tables), size=(DRAWS, len(tables)))
        low, high = np.percentile([scores(tables[rows].sum(0)) for rows in draws], (2.5, 97.5), axis=0)
        cells = [f"{value:.3f} ({a:.3f} … {b:.3f})"
                 for value, a, b in zip(scores(tables.sum(0)), low, high, strict=True)]
        print(f"| {getattr(title, 'name', title)} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("prepare")
    first.add_argument("source", type=Path)
    first.add_argument("target", type=Path)
    first.add_argument("--size", type=int, default=128)
    second = commands.add_parser("score")
    second.add_argument("strips", type=Path)
    second.add_argument("folders", type=Path, nargs="*")
    second.add_argument("--width", type=int, default=32)
    second.add_argument("--segmenter", type=Path, help="file to keep the segmentation network in")
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.source, options.target, options.size)
    else:
        score(options.strips, options.folders, options.width, options.segmenter)


if __name__ == "__main__":
    main()
