"""The classifiers of `i2i worth`: a small convolutional network, or one of timm, and its training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.images.format import Array
from i2i.metrics.networks.timm_models import make_classifier

WIDTH = 16              # Of the first convolution; each of the others doubles it.
DECAY = 1e-2
SMALL_RATE, BACKBONE_RATE = 2e-3, 5e-4      # The highest learning rates.
CROP = 8                # Crops move an image by up to this part of its side, in both directions.
TESTED = 256            # Images in a batch without gradients.


@dataclass(frozen=True)
class Schedule:
    """How every classifier is trained."""

    updates: int
    batch_size: int = 64
    backbone: str = ""          # Of timm; by default the small network.
    weights: Path | None = None     # What the backbone starts from.
    device: str = "cpu"


class SmallClassifier(nn.Sequential):
    """Three convolutions with batch norm, each halving the side, and a mean over places."""

    def __init__(self, classes: int, side: int) -> None:
        layers: list[nn.Module] = []
        for number, (into, out) in enumerate(((3, WIDTH), (WIDTH, 2 * WIDTH), (2 * WIDTH, 4 * WIDTH))):
            stride = 2 if number == 0 and side > 48 else 1
            layers += [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
                       nn.MaxPool2d(2) if side >= 2**(number + 3) else nn.Identity()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * WIDTH, classes))


def train_classifier(pixels: Array, labels: Array, classes: int, schedule: Schedule, *, seed: int,
                     augmented: bool = False) -> nn.Module:
    """Train on images (N, S, S, 3) uint8 for a number of updates; the last state counts.

    Every image comes once before one comes again.  `augmented`: by flips and crops.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        side = pixels.shape[1]
        network = make_classifier(schedule.backbone, classes, side, schedule.weights) \
            if schedule.backbone else SmallClassifier(classes, side)
        network.to(schedule.device).train()
        rate = BACKBONE_RATE if schedule.backbone else SMALL_RATE
        optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=DECAY)
        slope = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(schedule.updates, 2))
        draw = np.random.default_rng([seed, 1])
        order = np.empty(0, int)
        for _ in range(schedule.updates):
            while len(order) < schedule.batch_size:
                order = np.concatenate([order, draw.permutation(len(pixels))])
            some, order = order[:schedule.batch_size], order[schedule.batch_size:]
            batch = flip_and_crop(pixels[some], draw) if augmented else pixels[some]
            optimizer.zero_grad()
            target = torch.from_numpy(labels[some]).to(schedule.device)
            F.cross_entropy(network(_inputs(batch, schedule.device)), target).backward()
            optimizer.step()
            slope.step()
    return network.eval()


@torch.inference_mode()
def predict(network: nn.Module, pixels: Array, device: str = "cpu") -> Array:
    """The class of each image, (N,)."""
    return np.concatenate([network(_inputs(pixels[i:i + TESTED], device)).argmax(1).cpu().numpy()
                           for i in range(0, len(pixels), TESTED)])


def flip_and_crop(pixels: Array, draw: np.random.Generator) -> Array:
    """Mirror half of the images (N, S, S, 3), and move each, filling up by reflection."""
    n, side = pixels.shape[:2]
    margin = max(1, side // CROP)
    rows, columns = (draw.integers(0, 2 * margin + 1, (n, 1)) + np.arange(side) for _ in range(2))
    columns = np.where(draw.random((n, 1)) < 0.5, columns[:, ::-1], columns)
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)), "reflect")
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _inputs(pixels: Array, device: str) -> Tensor:
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)
    return images.float() / 127.5 - 1
