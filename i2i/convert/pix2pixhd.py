"""Generators of pix2pixHD, global ones and those with local enhancers."""

import re
from collections.abc import Mapping

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
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec

PROJECT = "pix2pixHD"
_BLOCK = {1: 1, 2: 2, 5: 6, 6: 7}      # Our indices of a residual block's layers by theirs.


def recognizes(source: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of pix2pixHD that pytorch-CycleGAN-and-pix2pix's ResNet does not have."""
    blocks = _blocks(source, "model")
    batch_norm_with_bias = "model.1.bias" in source and "model.2.running_mean" in source
    return "model1_1.1.weight" in source or (
        bool(blocks) and "model.7.filt" not in source and (
            blocks[0] != 10 or (batch_norm_with_bias and "model.2.weight" in source)))


def read(source: Mapping[str, Tensor]) -> Found:
    """Read a state dict.  RequestError where it does not fit."""
    source = without_unused_statistics(source)
    enhancers = sorted({int(match[1]) for key in source if (match := re.match(r"model(\d{1,2})_1\.", key))})
    blocks, count = _blocks(source, "model"), len(enhancers)
    depth, remainder = divmod(blocks[0] - 4, 3) if blocks else (0, 0)
    if enhancers != list(range(1, count + 1)) or not 1 <= depth <= 8 or remainder:
        raise misfit(PROJECT, f"its enhancers are {enhancers} and its first residual blocks {blocks[:1]}")
    end = blocks[0] + len(blocks) + 3 * depth       # Of the global generator's layers before the last ones.
    last = f"model.{end + 1}"
    modules = _layers("model", "global_generator", blocks, range(1, end))
    for n in enhancers:
        inner = _blocks(source, f"model{n}_2")
        modules |= _layers(f"model{n}_1", f"encoders.{n - 1}", [], range(1, 6))
        modules |= _layers(f"model{n}_2", f"decoders.{n - 1}", inner, range(len(inner) + 3))
        last = f"model{n}_2.{len(inner) + 4}"
    out_channels, width = shape_of(PROJECT, source, f"{last}.weight")[:2]
    norm = "batch" if "model.2.weight" in source else "instance"
    spec = Spec("pix2pixhd", {
        "width": width, "enhancers": count, "depth": depth, "blocks": len(blocks), "norm": norm,
        "enhancer_blocks": len(_blocks(source, "model1_2")) if count else 0})
    side = max(256, 2 * 2**(depth + count))
    info = DataInfo((side, side), shape_of(PROJECT, source, "model.1.weight")[1], out_channels)
    return Found(PROJECT, Pix2Pix(generator=spec), info, _without_biases_before_norms(source),
                 tensor_names(modules | {last: "output.1"}))


def _blocks(source: Mapping[str, Tensor], prefix: str) -> list[int]:
    """The indices of the residual blocks in a stack of layers."""
    pattern = re.compile(rf"{prefix}\.(\d{{1,4}})\.conv_block\.")
    return sorted({int(match[1]) for key in source if (match := pattern.match(key))})


def _layers(theirs: str, ours: str, blocks: list[int], indices: range) -> dict[str, str]:
    """Our names by theirs of the layers of a stack that has the same order in both."""
    return {f"{theirs}.{i}": f"{ours}.{i}" for i in indices} | {
        f"{theirs}.{i}.conv_block.{a}": f"{ours}.{i}.layers.{b}" for i in blocks for a, b in _BLOCK.items()}


def _without_biases_before_norms(source: Tensors) -> Tensors:
    """The tensors with the biases in front of batch norms, which ours do not have, within their means."""
    tensors = dict(source)
    for key in source:
        stem, _, index = key.removesuffix(".bias").rpartition(".")
        mean = f"{stem}.{int(index) + 1}.running_mean" if key.endswith(".bias") and index.isdecimal() else ""
        if mean in source and f"{stem}.{index}.running_mean" not in source:
            if source[mean].shape != source[key].shape:
                raise misfit(PROJECT, f"unexpected {key} {tuple(source[key].shape)}")
            tensors[mean] = source[mean] - tensors.pop(key)
    return tensors


FORMAT = Format(PROJECT, recognizes, read)
