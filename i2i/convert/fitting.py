"""A generator recognized in another project's checkpoint, and its tensors under our names."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.recipes.cut import CUT
from i2i.recipes.gan import GAN
from i2i.recipes.meta_device import check_tensor_sizes
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import build

Tensors = dict[str, Tensor]
# Our names of the tensors of a layer by torch's, those of torch.nn.utils.spectral_norm included.
LEAVES = {leaf: leaf for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")} | {
    "weight_orig": "parametrizations.weight.original", "weight_u": "parametrizations.weight.0.u",
    "weight_v": "parametrizations.weight.0.v"}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Found(NamedTuple):
    """A generator of another project.

    Args:
        project: the name of the project.
        recipe: our recipe, with the architecture in `generator`.
        info: sizes and channels of the images; `a_channels` are those that the network takes.
        source: its tensors by their names.
        names: our names by theirs.
        more: tensors that only our network has, by our names.
    """

    project: str
    recipe: Pix2Pix | CUT | GAN
    info: DataInfo
    source: Mapping[str, Tensor]
    names: Mapping[str, str]
    more: Mapping[str, Tensor] = {}


class Format(NamedTuple):
    """How the generators of a project are recognized by their tensors, and read."""

    project: str
    recognizes: Callable[[Mapping[str, Tensor]], bool]
    read: Callable[[Mapping[str, Tensor]], Found]


def misfit(project: str, difference: str) -> RequestError:
    """The error for a generator that differs from those of its project."""
    return RequestError(f"this looks like a generator of {project} but does not fit it: {difference}")


def shape_of(project: str, source: Mapping[str, Tensor], key: str, ndim: int = 4) -> tuple[int, ...]:
    """The shape of a tensor that must be there with this number of dimensions."""
    if key not in source or source[key].ndim != ndim or not source[key].numel():
        raise misfit(project, f"nothing of {ndim} dimensions for {key}")
    return tuple(source[key].shape)


def tensor_names(modules: Mapping[str, str], leaves: Mapping[str, str] = LEAVES) -> dict[str, str]:
    """Our names of tensors by theirs, from our names of modules by theirs."""
    return {f"{theirs}.{leaf}": f"{ours}.{our_leaf}" for theirs, ours in modules.items()
            for leaf, our_leaf in leaves.items()}


def without_unused_statistics(source: Mapping[str, Tensor]) -> Tensors:
    """The tensors without the statistics of norms that have no weights: instance norms stored some, unused,
    until 2018."""
    return {key: value for key, value in source.items()
            if not key.endswith(STATISTICS) or f"{key.rpartition('.')[0]}.weight" in source}


def fit(found: Found) -> Tensors:
    """The state dict of our network.  RequestError where the tensors are not those of the architecture."""
    recipe, info, names = found.recipe, found.info, found.names
    with torch.device("meta"), check_tensor_sizes():
        if recipe.sources:
            G = build("generator", recipe.generator, info.a_channels, info.b_channels, info.size)
        else:
            G = build("noise_generator", recipe.generator, info.b_channels, info.size, info.num_classes,
                      key="generator")
        expected: Tensors = build("weight_norm", recipe.g_weight_norm, G, key="g_weight_norm").state_dict()
    tensors = {name: torch.zeros((), dtype=torch.int64) for name in expected
               if name.endswith("num_batches_tracked")}         # Missing in files from before torch 0.4.1.
    tensors |= found.more
    for key, tensor in found.source.items():
        name = names.get(key, "")
        if name not in expected or expected[name].squeeze().shape != tensor.squeeze().shape:
            raise misfit(found.project, f"unexpected {key[:100]} {tuple(tensor.shape)}")
        tensors[name] = tensor.detach().to(expected[name].dtype).reshape(expected[name].shape).clone()
    if missing := [name for name in expected if name not in tensors]:
        theirs = {ours: key for key, ours in names.items()}
        raise misfit(found.project, f"nothing for {theirs.get(missing[0], missing[0])}")
    return tensors
