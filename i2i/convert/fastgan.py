"""Generators of FastGAN-pytorch."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from i2i.convert.fitting import Format, Found, misfit, shape_of, tensor_names
from i2i.recipes.base import DataInfo
from i2i.recipes.gan import GAN
from i2i.registry import Spec

PROJECT = "FastGAN-pytorch"
TANH_SIZE = 1024        # Pixels from which on their generator ends with tanh.
NOISE_SEED = 0


def read(source: Mapping[str, Tensor]) -> Found:
    """Read a state dict.  RequestError where it does not fit.

    Their noise is drawn anew for each image, and ours in training only: its later value is drawn here.  Their
    second, smaller image (`to_128`) is left out.
    """
    sizes = sorted({int(match[1]) for key in source if (match := re.match(r"feat_(\d{1,4})\.", key))})
    if not sizes or sizes != [8 << i for i in range(len(sizes))]:
        raise misfit(PROJECT, f"its maps are of {', '.join(map(str, sizes))} pixels")
    channels, width = shape_of(PROJECT, source, "to_big.weight_orig")[:2]
    size = sizes[-1], sizes[-1]
    spec = Spec("fastgan", {"z_dim": shape_of(PROJECT, source, "init.init.0.weight_orig")[0], "width": width,
                            "tanh": size[0] >= TANH_SIZE})
    modules = {"init.init.0": "first", "init.init.1": "first_norm.norm", "to_big": "out"}
    names, more = {}, {"out.bias": torch.zeros(channels)}
    generator = torch.Generator().manual_seed(NOISE_SEED)
    for i, side in enumerate(sizes):
        noisy = i % 2 == 0
        for j in range(1 + noisy):
            theirs, ours = f"feat_{side}", f"blocks.{i}.layers.{j}"
            place = 1 + 4 * j       # A convolution, noise if there is any, a norm and a gated linear unit.
            modules |= {f"{theirs}.{place}": f"{ours}.conv",
                        f"{theirs}.{place + 1 + noisy}": f"{ours}.norm.norm"}
            if noisy:
                names[f"{theirs}.{place + 1}.weight"] = f"{ours}.noise.strength"
                more[f"{ours}.noise.constant"] = torch.randn(1, 1, side, side, generator=generator)
        if side >= 64:
            modules |= {f"se_{side}.main.{theirs}": f"excitations.{i - 3}.layers.{ours}"
                        for theirs, ours in ((1, 0), (3, 2))}
    recipe = GAN(generator=spec, discriminator=Spec("fastgan"), adversarial=Spec("hinge"),
                 g_weight_norm=Spec("spectral"), d_weight_norm=Spec("spectral"))
    tensors = {key: tensor for key, tensor in source.items() if not key.startswith("to_128.")}
    return Found(PROJECT, recipe, DataInfo(size, channels, channels), tensors, tensor_names(modules) | names,
                 more)


FORMAT = Format(PROJECT, lambda source: "init.init.0.weight_orig" in source, read)
