"""Generators of SPADE (GauGAN)."""

from collections.abc import Mapping

from torch import Tensor

from i2i.convert.fitting import Format, Found, misfit, shape_of, tensor_names
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec

PROJECT = "SPADE"
BLOCKS = ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3")
_NORM = {"param_free_norm": "norm", "mlp_shared.0": "shared", "mlp_gamma": "gamma", "mlp_beta": "beta"}


def read(source: Mapping[str, Tensor]) -> Found:
    """Read a state dict.  RequestError where it does not fit.

    The depth is that of num_upsampling_layers=normal: with `more` a map is doubled once more, in tensors of
    the same names and shapes.
    """
    if "fc.weight" in source and source["fc.weight"].ndim == 2:
        raise misfit(PROJECT, "it starts from the style of an image (use_vae); accepted: from a label map")
    if "up_4.conv_0.bias" in source:
        raise misfit(PROJECT, "it has num_upsampling_layers=most; accepted: normal and more")
    in_channels = shape_of(PROJECT, source, "fc.weight")[1]
    out_channels, width = shape_of(PROJECT, source, "conv_img.weight")[:2]
    spec = Spec("spade", {
        "width": width, "depth": 5,
        "norm": "batch" if "head_0.norm_0.param_free_norm.running_mean" in source else "instance",
        "hidden": shape_of(PROJECT, source, "head_0.norm_0.mlp_shared.0.weight")[0],
        "spectral_norm": "head_0.conv_0.weight_orig" in source})
    modules = {"fc": "start", "conv_img": "output"}
    for i, block in enumerate(BLOCKS):
        for part in ("0", "1", "s"):
            modules |= {f"{block}.conv_{part}": f"blocks.{i}.conv_{part}"} | {
                f"{block}.norm_{part}.{theirs}": f"blocks.{i}.norm_{part}.{ours}"
                for theirs, ours in _NORM.items()}
    return Found(PROJECT, Pix2Pix(generator=spec), DataInfo((256, 256), in_channels, out_channels), source,
                 tensor_names(modules))


FORMAT = Format(PROJECT, lambda source: "head_0.conv_0.bias" in source, read)
