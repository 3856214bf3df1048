"""Generators of stylegan2-ada-pytorch, and of stylegan3 with its stylegan2 configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from i2i.convert.checkpoint_files import Tensors
from i2i.errors import RequestError
from i2i.registry import Spec, build

FIRST = "synthesis.b4.const"        # In all of them, and in no network of others.
_FILTER = ".resample_filter"        # Of every layer.

_LEAVES = {"noise_strength": "noise.strength", "noise_const": "noise.constant"}


def recognized(source: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of such a generator."""
    return FIRST in source


def convert(source: Mapping[str, Tensor]) -> tuple[Spec, Tensors, int, int, int]:
    """State dict -> our generator's spec, our state dict, channels of an image, pixels of its sides, classes.
    RequestError where it does not fit."""
    sizes = sorted({int(match[1]) for key in source if (match := re.match(r"synthesis\.b(\d+)\.", key))})
    _fits(sizes == [4 << i for i in range(len(sizes))] and len(sizes) > 1,
          f"its maps are of {', '.join(map(str, sizes))} pixels")
    # From the image inwards.
    widths = [_shape(source, f"synthesis.b{size}.conv1.weight", 4)[0] for size in reversed(sizes)]
    _fits(widths == [min(widths[0] << i, widths[-1]) for i in range(len(widths))],
          f"its maps have {', '.join(map(str, widths))} channels")
    label, classes = _shape(source, "mapping.embed.weight", 2) if "mapping.embed.weight" in source else (0, 0)
    spec = Spec("stylegan2", {
        "z_dim": _shape(source, "mapping.fc0.weight", 2)[1] - label,
        "w_dim": _shape(source, "synthesis.b4.conv1.affine.weight", 2)[1],
        "width": widths[0], "max_channels": widths[-1],
        "mapping_layers": sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in source)})
    colors = _shape(source, f"synthesis.b{sizes[-1]}.torgb.weight", 4)[0]
    return spec, _renamed(source, spec, colors, sizes[-1], classes), colors, sizes[-1], classes


def _fits(condition: bool, what: str) -> None:
    if not condition:
        raise RequestError(f"this looks like a generator of stylegan2-ada-pytorch but does not fit it: {what}")


def _shape(source: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    _fits(key in source and source[key].ndim == dimensions and source[key].numel() > 0,
          f"nothing of {dimensions} dimensions for {key}")
    return tuple(source[key].shape)


def _renamed(source: Mapping[str, Tensor], spec: Spec, colors: int, side: int, classes: int) -> Tensors:
    with torch.device("meta"):
        expected: Tensors = build("noise_generator", spec, colors, (side, side), classes).state_dict()
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    out = {}
    for key, tensor in source.items():
        if key.endswith(_FILTER):
            _fits(tensor.shape == (4, 4)
                  and torch.allclose(tensor.float(), torch.outer(line, line), atol=1e-6),
                  f"{key} is another filter")
            continue
        name = our_name(key)
        _fits(name in expected and expected[name].squeeze().shape == tensor.squeeze().shape,
              f"unexpected {key} {tuple(tensor.shape)}")
        out[name] = tensor.detach().float().reshape(expected[name].shape).clone()
    missing = sorted(expected.keys() - out.keys())
    _fits(not missing, f"nothing for {', '.join(missing[:1])}")
    return out


def our_name(theirs: str) -> str:
    """synthesis.b8.conv0.affine.weight -> up.0.affine.weight; a name of ours that no tensor has where there
    is none."""
    if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", theirs):
        return f"mapping.layers.{match[1]}.{match[2]}"
    if theirs == "mapping.w_avg":
        return "w_avg"
    if theirs == FIRST:
        return "constant"
    match = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", theirs)
    if not match:
        return theirs       # mapping.embed has the same name.
    level = int(match[1]).bit_length() - 3      # 0 at 4 pixels.
    layer = {"conv0": f"up.{level - 1}", "conv1": f"layers.{level - 1}" if level else "first",
             "torgb": f"rgb.{level}"}[match[2]]
    return f"{layer}.{_LEAVES.get(match[3], match[3])}"
