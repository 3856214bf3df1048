"""Generators of pytorch-CycleGAN-and-pix2pix and of contrastive-unpaired-translation (CUT)."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from i2i.convert.fitting import (
    Format,
    Found,
    Tensors,
    misfit,
    shape_of,
    tensor_names,
    without_unused_statistics,
)
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.recipes.cut import CUT
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec

PROJECT, CUT_PROJECT = "pytorch-CycleGAN-and-pix2pix", "contrastive-unpaired-translation"
BLUR, BILINEAR = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
MAX_DEPTH = 15


def recognizes(source: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a U-Net or ResNet."""
    first = source.get("model.1.weight")
    return "model.model.0.weight" in source or (first is not None and first.shape[2:] == (7, 7))


def read(source: Mapping[str, Tensor]) -> Found:
    """Read the state dict of a U-Net or ResNet.  RequestError where it does not fit."""
    source = without_unused_statistics(source)
    return (_read_unet if "model.model.0.weight" in source else _read_resnet)(source)


def _read_unet(source: Tensors) -> Found:
    depth = max(len(re.findall(r"model\.(?=\d)", key)) for key in source)
    if not 2 <= depth <= MAX_DEPTH:
        raise misfit(PROJECT, f"its depth is {depth}")
    width, in_channels = shape_of(PROJECT, source, "model.model.0.weight")[:2]
    out_channels = shape_of(PROJECT, source, "model.model.3.weight")[1]
    level = _unet_level(1)
    norm = _norm(source, f"{level}.model.2", f"{level}.model.1")
    spec = Spec("unet", {"width": width, "depth": depth, "norm": norm, "dropout_skip": 1})
    return Found(PROJECT, Pix2Pix(generator=spec), DataInfo((2**depth, 2**depth), in_channels, out_channels),
                 source, tensor_names(unet_modules(depth)))


def _unet_level(i: int) -> str:
    """The name of level i; each level is nested in the one before it."""
    return "model" + ".model.1" * (i > 0) + ".model.3" * (i - 1)


def unet_modules(depth: int) -> dict[str, str]:
    """Our names of a U-Net's layers by theirs."""
    names = {"model.model.0": "down.0.0", "model.model.3": f"up.{depth - 1}.0"}
    for i in range(1, depth):
        level, innermost, up = _unet_level(i), i == depth - 1, depth - 1 - i
        names |= {f"{level}.model.1": f"down.{i}.0",
                  f"{level}.model.{3 if innermost else 5}": f"up.{up}.0",
                  f"{level}.model.{4 if innermost else 6}": f"up.{up}.1"}
        if not innermost:
            names[f"{level}.model.2"] = f"down.{i}.1"
    return names


def _read_resnet(source: Tensors) -> Found:
    width, in_channels = shape_of(PROJECT, source, "model.1.weight")[:2]
    # CUT has layers that blur, after the convolutions that go down and before those that go up.
    down = "model.7.filt" in source
    blocks = len({key.split(".")[1] for key in source if ".conv_block." in key})
    first = 10 + 2 * down
    up = f"model.{first + blocks}.filt" in source
    # At 6 is the second convolution if there is a dropout layer before it, else its norm.
    sixth = source.get(f"model.{first}.conv_block.6.weight")
    dropout = sixth is not None and sixth.ndim == 4
    modules = resnet_modules(blocks, down, up, dropout)
    last = f"{next(key for key, ours in modules.items() if ours == f'layers.{first + blocks + 7}')}.weight"
    if not blocks or last not in source:
        raise RequestError(f"this looks like a ResNet generator of {PROJECT} but its last layer is not where "
                           "it should be")
    spec = Spec("resnet", {"width": width, "blocks": blocks, "norm": _norm(source, "model.2", "model.1"),
                           "dropout": 0.5 if dropout else 0.0, **({"down": "blurpool"} if down else {}),
                           **({"up": "bilinear"} if up else {})})
    info = DataInfo((256, 256), in_channels, shape_of(PROJECT, source, last)[0])
    recipe = CUT(generator=spec) if down or up else Pix2Pix(generator=spec)
    expected = filters(width, blocks, down, up)
    for key, filter in expected.items():
        if key not in source or source[key].shape != filter.shape or not torch.allclose(
                source[key].float(), filter, atol=1e-6):
            raise misfit(CUT_PROJECT, f"{key} is another filter")
    tensors = {key: value for key, value in source.items() if key not in expected}
    return Found(PROJECT, recipe, info, tensors, tensor_names(modules))


def resnet_modules(blocks: int, down: bool, up: bool, dropout: bool) -> dict[str, str]:
    """Our names of a ResNet's layers by theirs, which count the layers that blur."""
    first = 10 + 2 * down
    after = first + blocks
    names = {f"model.{i}": f"layers.{i}" for i in (1, 2, 4, 5, 7 + down, 8 + down)}
    second = 6 if dropout else 5
    for block in range(first, after):
        names |= {f"model.{block}.conv_block.{theirs}": f"layers.{block}.layers.{ours}"
                  for theirs, ours in ((1, 1), (2, 2), (second, 6), (second + 1, 7))}
    for theirs, ours in ((after + up, after), (after + 3 + 2 * up, after + 3)):
        names |= {f"model.{theirs}": f"layers.{ours}" + ".1" * up,
                  f"model.{theirs + 1}": f"layers.{ours + 1}"}
    # After the blocks: three layers for each of two upsamplings, a padding, then the last convolution.
    return names | {f"model.{after + 7 + 2 * up}": f"layers.{after + 7}"}


def filters(width: int, blocks: int, down: bool, up: bool) -> Tensors:
    """The filters in CUT's state dict, which we have as constants."""
    after = 10 + 2 * down + blocks
    places = [(f"model.{i}.filt", n, BLUR) for i, n in ((7, 2), (11, 4)) if down] + [
        (f"model.{after + i}.filt", n, BILINEAR) for i, n in ((0, 4), (4, 2)) if up]
    return {key: torch.outer(line, line).repeat(n * width, 1, 1, 1) for key, n, line in places}


def _norm(source: Mapping[str, Tensor], norm: str, convolution: str) -> str:
    """Batch norm has weights; instance norm has none but leaves a bias to the convolution."""
    if f"{norm}.weight" in source:
        return "batch"
    return "instance" if f"{convolution}.bias" in source else "none"


FORMAT = Format(f"{PROJECT} and {CUT_PROJECT}", recognizes, read)
