"""Generators of pytorch-CycleGAN-and-pix2pix and of contrastive-unpaired-translation (CUT)."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from i2i.convert.checkpoint_files import Generator, fit, misfit
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.registry import Spec

CUT = "contrastive-unpaired-translation"
BLUR, BILINEAR = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def convert(source: Mapping[str, Tensor]) -> Generator:
    """Convert the state dict of a U-Net or ResNet generator; RequestError where it does not fit."""
    if any(key.startswith("model.model.") for key in source):
        return _convert_unet(source)
    if "model.1.weight" in source and source["model.1.weight"].shape[-1] == 7:
        return _convert_resnet(source)
    raise RequestError(f"no generator of pytorch-CycleGAN-and-pix2pix is recognized in these {len(source)} "
                       f"tensors (the first: {next(iter(source))}); accepted: its U-Net and ResNet "
                       f"generators, ResNet generators of {CUT}, and generators of stylegan2-ada-pytorch")


def _convert_unet(source: Mapping[str, Tensor]) -> Generator:
    # Level i is nested i times: its layers lie under "model" + ".model.1" + ".model.3" * (i - 1).
    def level(i: int) -> str:
        return "model" + ".model.1" * (i > 0) + ".model.3" * (i - 1)

    depth = max(len(re.findall(r"model\.(?=\d)", key)) for key in source)
    width, in_channels = source["model.model.0.weight"].shape[:2]
    out_channels = source["model.model.3.weight"].shape[1]
    norm = _norm(source, f"{level(1)}.model.2", f"{level(1)}.model.1")
    spec = Spec("unet", {"width": int(width), "depth": depth, "norm": norm, "dropout_skip": 1})
    names = {"model.model.0": "down.0.0", "model.model.3": f"up.{depth - 1}.0"}
    for i in range(1, depth):
        innermost, up = i == depth - 1, depth - 1 - i
        names |= {f"{level(i)}.model.1": f"down.{i}.0",
                  f"{level(i)}.model.{3 if innermost else 5}": f"up.{up}.0",
                  f"{level(i)}.model.{4 if innermost else 6}": f"up.{up}.1"}
        if not innermost:
            names[f"{level(i)}.model.2"] = f"down.{i}.1"
    info = DataInfo((2**depth, 2**depth), int(in_channels), int(out_channels))
    return _rename(source, spec, info, names)


def _convert_resnet(source: Mapping[str, Tensor]) -> Generator:
    width, in_channels = source["model.1.weight"].shape[:2]
    # CUT has layers that blur, after the convolutions that go down and before those that go up.
    down = int("model.7.filt" in source)
    blocks = len({key.split(".")[1] for key in source if ".conv_block." in key})
    first, after = 10 + 2 * down, 10 + 2 * down + blocks
    up = int(f"model.{after}.filt" in source)
    # At 6 is the second convolution if there is a dropout layer before it, else its norm.
    sixth = source.get(f"model.{first}.conv_block.6.weight")
    dropout = sixth is not None and sixth.ndim == 4
    # After the blocks: three layers for each of two upsamplings, a padding, then the last convolution.
    last = f"model.{after + 7 + 2 * up}"
    if not blocks or f"{last}.weight" not in source:
        raise RequestError("this looks like a ResNet generator of pytorch-CycleGAN-and-pix2pix but its last "
                           "layer is not where it should be")
    spec = Spec("resnet", {"width": int(width), "blocks": blocks, "norm": _norm(source, "model.2", "model.1"),
                           "dropout": 0.5 if dropout else 0.0, **({"down": "blurpool"} if down else {}),
                           **({"up": "bilinear"} if up else {})})
    names = {f"model.{i}": f"layers.{i}" for i in (1, 2, 4, 5, 7 + down, 8 + down)}
    for theirs, ours in ((after + up, after), (after + 3 + 2 * up, after + 3)):
        names |= {f"model.{theirs}": f"layers.{ours}" + ".1" * up,
                  f"model.{theirs + 1}": f"layers.{ours + 1}"}
    names[last] = f"layers.{after + 7}"
    second = 6 if dropout else 5
    for block in range(first, after):
        names |= {f"model.{block}.conv_block.{theirs}": f"layers.{block}.layers.{ours}"
                  for theirs, ours in ((1, 1), (2, 2), (second, 6), (second + 1, 7))}
    info = DataInfo((256, 256), int(in_channels), int(source[f"{last}.weight"].shape[0]))
    filters = dict.fromkeys(("model.7.filt", "model.11.filt") if down else (), BLUR)
    filters |= dict.fromkeys((f"model.{after}.filt", f"model.{after + 4}.filt") if up else (), BILINEAR)
    return _rename(_without_filters(source, filters), spec, info, names)


def _without_filters(source: Mapping[str, Tensor], filters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without its filters, which we have as constants; RequestError if it has others."""
    for key, line in filters.items():
        kernel = torch.outer(line, line)
        expected = key in source and source[key].shape[-2:] == kernel.shape
        if not expected or not torch.allclose(source[key].float(), kernel, atol=1e-6):
            raise misfit(CUT, f"{key} is another filter")
    return {key: value for key, value in source.items() if key not in filters}


def _norm(source: Mapping[str, Tensor], norm: str, convolution: str) -> str:
    """Batch norm has weights; instance norm has none but leaves a bias to the convolution."""
    if f"{norm}.weight" in source:
        return "batch"
    return "instance" if f"{convolution}.bias" in source else "none"


def _rename(source: Mapping[str, Tensor], spec: Spec, info: DataInfo,
            modules: Mapping[str, str]) -> Generator:
    """The generator, by our names of their modules."""
    # Instance norms had statistics before 2018, without using them.
    unused = () if spec.options["norm"] == "batch" else _STATISTICS
    names = {f"{theirs}.{leaf}": f"{ours}.{leaf}" for theirs, ours in modules.items()
             for leaf in ("weight", "bias", *_STATISTICS)}
    renamed = {key: (names.get(key, ""), tensor) for key, tensor in source.items()
               if not key.endswith(unused)}
    return fit("pytorch-CycleGAN-and-pix2pix", "generator", spec, info, renamed)
