"""Feature networks by name, and images to features by one of them: eval mode, float32, TF32 off."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from i2i.images.format import Array
from i2i.metrics.networks import inception, open_nsfw, random_filters, timm_models, vgg  # noqa: F401
from i2i.metrics.networks.base import FeatureNetwork
from i2i.metrics.resizing import Resize, normalize
from i2i.metrics.weights import catalog, find_weights, locate_weights
from i2i.registry import Spec, build, lookup, names

CPU = torch.device("cpu")
# (N, 3, H, W) -> features (N, D) and logits (N, K) or None
Network = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def load_network(name: str, weights: Path | None = None) -> FeatureNetwork:
    """A feature network on the CPU.  RequestError, of one line, if its name or its weights are not known.

    Args:
        name: one of `i2i list feature_network`, or `timm:NAME`.
        weights: its weights file, or a folder to look for it in first.
    """
    kind, _, architecture = name.partition(":")
    spec = Spec(kind, {"architecture": architecture}) if kind == "timm" and architecture else Spec(name)
    lookup("feature_network", spec.name)
    if name in catalog():
        weights = find_weights(name, weights)
    elif weights is not None and weights.is_dir():
        weights = None
    network = build("feature_network", spec, weights)
    return cast(FeatureNetwork, network)


@functools.cache
def frozen_network(name: str, device: torch.device = CPU) -> FeatureNetwork:
    """A feature network on a device, shared by all that use it.  Draws none of the run's random numbers."""
    if device.type != "cpu":
        return copy.deepcopy(frozen_network(name)).to(device)
    with torch.random.fork_rng(devices=[]), CPU:
        return load_network(name)


def rgb_images(x: Tensor) -> list[Tensor]:
    """Images of any channels as color images: each three in turn, and each of the rest as a gray one.

    (N, C, H, W) -> [(N, 3, H, W)]
    """
    colors = x.shape[1] // 3 * 3
    return [*(x[:, i:i + 3] for i in range(0, colors, 3)),
            *(x[:, i:i + 1].expand(-1, 3, -1, -1) for i in range(colors, x.shape[1]))]


def available_networks(folder: Path | None = None) -> list[str]:
    """The names of the networks that can be loaded here: those without weights, and those whose are found."""
    known = catalog()
    return [name for name in names("feature_network")
            if name == "random" or (name in known and locate_weights(name, folder) is not None)]


@dataclass(frozen=True)
class FeatureExtractor:
    """A feature network with everything that decides its output."""

    name: str               # Of the network.
    weights: str            # sha256 of the weights file.
    resize: str             # Name of the resize mode.
    size: int               # Side of the network's square input.
    num_features: int
    network: Network
    mean: tuple[float, ...] | None = None       # Of [0, 1]; None for the scale of the resize mode.
    std: tuple[float, ...] | None = None
    device: str = "cpu"

    @classmethod
    def of(cls, network: FeatureNetwork, *, resize: str = "clean", device: str = "cpu") -> "FeatureExtractor":
        """The pooled features of a network, which is moved to the device."""
        return cls(network.name, network.weights, resize, network.size, network.num_features,
                   network.to(device), network.mean, network.std, device)

    def prepare(self, image: Array) -> Tensor:
        """Resize and normalize an image: (H, W, 3) uint8 -> (3, size, size)."""
        levels = cast(Resize, lookup("resize", self.resize))(image, self.size)
        if self.mean is None or self.std is None:
            return normalize(levels, self.resize)
        mean, std = (torch.tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (levels / 255 - mean) / std

    @torch.inference_mode()
    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, 3, size, size) -> features (N, D) and logits (N, K) or None, float32 on the CPU."""
        with exact_float32(), torch.autocast(torch.device(self.device).type, enabled=False):
            batch = batch.to(self.device).contiguous(memory_format=torch.channels_last)
            features, logits = self.network(batch)
        return features.float().cpu(), None if logits is None else logits.float().cpu()

    def extract(self, images: Sequence[Array], *, batch_size: int = 32) -> tuple[Tensor, Tensor | None]:
        """Features (N, D) and logits (N, K) or None of images in memory, each (H, W, 3) uint8."""
        parts = [self(torch.stack([self.prepare(image) for image in images[i:i + batch_size]]))
                 for i in range(0, len(images), batch_size)]
        logits = [part[1] for part in parts if part[1] is not None]
        return torch.cat([part[0] for part in parts]), torch.cat(logits) if logits else None


def load_extractor(name: str, weights: Path | None = None, *, resize: str = "clean",
                   device: str = "cpu") -> FeatureExtractor:
    """The pooled features of a network by name; see `load_network`."""
    return FeatureExtractor.of(load_network(name, weights), resize=resize, device=device)


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Disable TF32 on GPUs within this block: it moves features by more than 1e-4."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def check_finite(features: Tensor | np.ndarray[Any, Any], where: str) -> None:
    """ValueError that counts the feature vectors (N, D) with NaN or infinity."""
    finite = np.isfinite(np.asarray(features)).all(1)
    if not finite.all():
        raise ValueError(f"{(~finite).sum()} of {len(finite)} feature vectors of {where} are not finite, the "
                         f"first at {int(np.argmin(finite))}")
