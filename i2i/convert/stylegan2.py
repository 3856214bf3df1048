"""Generators of stylegan2-ada-pytorch, and of stylegan3 with its stylegan2 configuration."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from i2i.convert.fitting import LEAVES, Format, Found, misfit, shape_of, tensor_names
from i2i.recipes.base import DataInfo
from i2i.recipes.gan import GAN
from i2i.registry import Spec

PROJECT = "stylegan2-ada-pytorch"
CONSTANT = "synthesis.b4.const"     # The learned input, in all of them and in no network of other projects.
FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
_LEAVES = LEAVES | {"affine.weight": "affine.weight", "affine.bias": "affine.bias",
                    "noise_strength": "noise.strength", "noise_const": "noise.constant"}


def read(source: Mapping[str, Tensor]) -> Found:
    """Read a state dict.  RequestError where it does not fit."""
    sizes = sorted({int(match[1]) for key in source if (match := re.match(r"synthesis\.b(\d{1,5})\.", key))})
    _check(sizes == [4 << i for i in range(len(sizes))] and len(sizes) > 1,
           f"its maps are of {', '.join(map(str, sizes))} pixels")
    widths = [shape_of(PROJECT, source, f"synthesis.b{size}.conv1.weight")[0] for size in reversed(sizes)]
    _check(widths == [min(widths[0] << i, widths[-1]) for i in range(len(widths))],
           f"its maps have {', '.join(map(str, widths))} channels")
    embedding = "mapping.embed.weight"
    embedding_dim, classes = shape_of(PROJECT, source, embedding, 2) if embedding in source else (0, 0)
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in source)
    spec = Spec("stylegan2", {
        "z_dim": shape_of(PROJECT, source, "mapping.fc0.weight", 2)[1] - embedding_dim,
        "w_dim": shape_of(PROJECT, source, "synthesis.b4.conv1.affine.weight", 2)[1],
        "width": widths[0], "max_channels": widths[-1], "mapping_layers": layers})
    channels = shape_of(PROJECT, source, f"synthesis.b{sizes[-1]}.torgb.weight")[0]
    recipe = GAN(generator=spec, discriminator=Spec("stylegan2"), conditional=bool(classes))
    modules = {"mapping.embed": "mapping.embed"} | {
        f"mapping.fc{i}": f"mapping.layers.{i}" for i in range(layers)}
    for level, size in enumerate(sizes):
        modules |= {f"synthesis.b{size}.conv0": f"up.{level - 1}",
                    f"synthesis.b{size}.conv1": f"layers.{level - 1}" if level else "first",
                    f"synthesis.b{size}.torgb": f"rgb.{level}"}
    names = tensor_names(modules, _LEAVES) | {"mapping.w_avg": "w_avg", CONSTANT: "constant"}
    tensors = {key: tensor for key, tensor in source.items() if not key.endswith(".resample_filter")}
    for key in source.keys() - tensors.keys():          # We have it as a constant.
        _check(source[key].shape == (4, 4) and torch.allclose(
            source[key].float(), torch.outer(FILTER, FILTER), atol=1e-6), f"{key} is another filter")
    info = DataInfo((sizes[-1], sizes[-1]), channels, channels, classes)
    return Found(PROJECT, recipe, info, tensors, names)


def _check(condition: bool, difference: str) -> None:
    if not condition:
        raise misfit(PROJECT, difference)


FORMAT = Format(PROJECT, lambda source: CONSTANT in source, read)
