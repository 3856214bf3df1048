"""Generators of pytorch-CycleGAN-and-pix2pix."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from i2i.convert.checkpoint_files import Tensors
from i2i.errors import RequestError
from i2i.registry import Spec, build

_INSTANCE_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


def convert(source: Mapping[str, Tensor]) -> tuple[Spec, Tensors, int, int, tuple[int, int]]:
    """A generator of pytorch-CycleGAN-and-pix2pix.  state dict -> its spec, our state dict, channels in and
    out, a size it takes"""
    if any(key.startswith("model.model.") for key in source):
        return _unet(source)
    if "model.1.weight" in source and source["model.1.weight"].shape[-1] == 7:
        return _resnet(source)
    example = next(iter(source))
    raise RequestError(f"no generator of pytorch-CycleGAN-and-pix2pix is recognized in these {len(source)} "
                       f"tensors (the first: {example}); "
                       "accepted: its U-Net and ResNet generators, and generators of stylegan2-ada-pytorch")


def _has_norm(source: Mapping[str, Tensor], prefix: str) -> bool:
    return f"{prefix}.weight" in source


def _copy(source: Mapping[str, Tensor], ours: Tensors, pairs: Mapping[str, str]) -> Tensors:
    """Our tensors, filled from theirs by module name; RequestError on any shape or name that does not fit."""
    names = {f"{theirs}.{leaf}": f"{mine}.{leaf}" for theirs, mine in pairs.items()
             for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    out, unknown = {}, []
    for key, tensor in source.items():
        if names.get(key) in ours and ours[names[key]].shape == tensor.shape:
            out[names[key]] = tensor.clone()
        # Files of before 2018 kept statistics that instance norm does not use.
        elif not key.endswith(_INSTANCE_STATISTICS):
            unknown.append(f"{key} {tuple(tensor.shape)}")
    for key in ours.keys() - out.keys():
        if key.endswith("num_batches_tracked"):         # Absent in files of before torch 0.4.1.
            out[key] = torch.zeros((), dtype=torch.int64)
    missing = sorted(ours.keys() - out.keys())
    if unknown or missing:
        what = f"unexpected {unknown[0]}" if unknown else f"nothing for {missing[0]}"
        raise RequestError(f"this looks like a generator of pytorch-CycleGAN-and-pix2pix but does not fit "
                           f"it: {what}")
    return out


def _norm_of(source: Mapping[str, Tensor], norm: str, convolution: str) -> str:
    """Batch norm has gains; without any, a convolution bias tells instance norm from none at all."""
    return "batch" if _has_norm(source, norm) else "instance" if f"{convolution}.bias" in source else "none"


def _empty(spec: Spec, ins: int, outs: int, size: tuple[int, int]) -> Tensors:
    with torch.device("meta"):
        network: nn.Module = build("generator", spec, ins, outs, size)
    return network.state_dict()


def _unet(source: Mapping[str, Tensor]) -> tuple[Spec, Tensors, int, int, tuple[int, int]]:
    # Level i is nested i times: its layers lie under "model" + ".model.1" + ".model.3" * (i - 1).
    def level(i: int) -> str:
        return "model" + ".model.1" * (i > 0) + ".model.3" * (i - 1)

    depth = max(len(re.findall(r"model\.(?=\d)", key)) for key in source)
    width, ins = source["model.model.0.weight"].shape[:2]
    outs = source["model.model.3.weight"].shape[1]
    norm = _norm_of(source, f"{level(1)}.model.2", f"{level(1)}.model.1")
    spec = Spec("unet", {"width": int(width), "depth": depth, "norm": norm, "dropout_skip": 1})
    pairs = {"model.model.0": "down.0.0", "model.model.3": f"up.{depth - 1}.0"}
    for i in range(1, depth):
        inner = i == depth - 1
        up = depth - 1 - i
        pairs |= {f"{level(i)}.model.1": f"down.{i}.0", f"{level(i)}.model.{3 if inner else 5}": f"up.{up}.0",
                  f"{level(i)}.model.{4 if inner else 6}": f"up.{up}.1"}
        if not inner:
            pairs[f"{level(i)}.model.2"] = f"down.{i}.1"
    size = (2**depth, 2**depth)
    return spec, _copy(source, _empty(spec, int(ins), int(outs), size), pairs), int(ins), int(outs), size


def _resnet(source: Mapping[str, Tensor]) -> tuple[Spec, Tensors, int, int, tuple[int, int]]:
    width, ins = source["model.1.weight"].shape[:2]
    blocks = len({key.split(".")[1] for key in source if ".conv_block." in key})
    # The second convolution if a dropout layer pushed it there, else its norm.
    sixth = source.get("model.10.conv_block.6.weight")
    dropout = sixth is not None and sixth.ndim == 4
    # Three layers for each of two upsamplings, a padding, then the last convolution.
    last = f"model.{10 + blocks + 7}"
    if not blocks or f"{last}.weight" not in source:
        raise RequestError("this looks like a ResNet generator of pytorch-CycleGAN-and-pix2pix but its last "
                           "layer is not where it should be")
    outs = source[f"{last}.weight"].shape[0]
    norm = _norm_of(source, "model.2", "model.1")
    spec = Spec("resnet",
                {"width": int(width), "blocks": blocks, "norm": norm, "dropout": 0.5 if dropout else 0.0})
    second = 6 if dropout else 5
    pairs = {f"model.{i}": f"layers.{i}" for i in (1, 2, 4, 5, 7, 8)}
    for b in range(10, 10 + blocks):
        pairs |= {f"model.{b}.conv_block.{theirs}": f"layers.{b}.layers.{mine}" for theirs,
                  mine in ((1, 1), (2, 2), (second, 6), (second + 1, 7))}
    pairs |= {f"model.{10 + blocks + i}": f"layers.{10 + blocks + i}" for i in (0, 1, 3, 4, 7)}
    size = (256, 256)
    return spec, _copy(source, _empty(spec, int(ins), int(outs), size), pairs), int(ins), int(outs), size
