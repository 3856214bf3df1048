"""Generators of stylegan2-ada-pytorch, and of stylegan3 with its stylegan2 configuration."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from i2i.convert.checkpoint_files import Generator, fit, misfit
from i2i.recipes.base import DataInfo
from i2i.registry import Spec

PROJECT = "stylegan2-ada-pytorch"
CONSTANT = "synthesis.b4.const"     # The learned input, in all of them and in no network of other projects.
FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
_LEAVES = {"noise_strength": "noise.strength", "noise_const": "noise.constant"}


def convert(source: Mapping[str, Tensor]) -> Generator:
    """Convert a state dict; RequestError where it does not fit."""
    sizes = sorted({int(match[1]) for key in source if (match := re.match(r"synthesis\.b(\d+)\.", key))})
    _check(sizes == [4 << i for i in range(len(sizes))] and len(sizes) > 1,
           f"its maps are of {', '.join(map(str, sizes))} pixels")
    widths = [_shape(source, f"synthesis.b{size}.conv1.weight", 4)[0] for size in reversed(sizes)]
    _check(widths == [min(widths[0] << i, widths[-1]) for i in range(len(widths))],
           f"its maps have {', '.join(map(str, widths))} channels")
    embedding = "mapping.embed.weight"
    embedding_dim, classes = _shape(source, embedding, 2) if embedding in source else (0, 0)
    spec = Spec("stylegan2", {
        "z_dim": _shape(source, "mapping.fc0.weight", 2)[1] - embedding_dim,
        "w_dim": _shape(source, "synthesis.b4.conv1.affine.weight", 2)[1],
        "width": widths[0], "max_channels": widths[-1],
        "mapping_layers": sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in source)})
    channels = _shape(source, f"synthesis.b{sizes[-1]}.torgb.weight", 4)[0]
    info = DataInfo((sizes[-1], sizes[-1]), channels, channels, classes)
    renamed = {key: (our_name(key), tensor) for key, tensor in source.items()
               if not key.endswith(".resample_filter")}
    for key in source.keys() - renamed.keys():          # We have it as a constant.
        _check(source[key].shape == (4, 4) and torch.allclose(
            source[key].float(), torch.outer(FILTER, FILTER), atol=1e-6), f"{key} is another filter")
    return fit(PROJECT, "noise_generator", spec, info, renamed)


def _check(condition: bool, difference: str) -> None:
    if not condition:
        raise misfit(PROJECT, difference)


def _shape(source: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    _check(key in source and source[key].ndim == ndim and source[key].numel() > 0,
           f"nothing of {ndim} dimensions for {key}")
    return tuple(source[key].shape)


def our_name(key: str) -> str:
    """Our name of a tensor: `synthesis.b8.conv0.weight` -> `up.0.weight`; unknown names stay."""
    if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", key):
        return f"mapping.layers.{match[1]}.{match[2]}"
    if key in ("mapping.w_avg", CONSTANT):
        return "w_avg" if key == "mapping.w_avg" else "constant"
    match = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", key)
    if not match:
        return key          # mapping.embed has the same name.
    level = int(match[1]).bit_length() - 3      # 0 at 4 pixels.
    layer = {"conv0": f"up.{level - 1}", "conv1": f"layers.{level - 1}" if level else "first",
             "torgb": f"rgb.{level}"}[match[2]]
    return f"{layer}.{_LEAVES.get(match[3], match[3])}"
