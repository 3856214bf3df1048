"""What the engine knows of a recipe."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from i2i.augment.base import Augment
from i2i.errors import RequestError, require
from i2i.losses.adversarial import Adversarial
from i2i.nets.norms import uses_batch_statistics
from i2i.registry import Spec, build
from i2i.seeding import Progress

# Modules and parameters of a recipe's networks, together.  StyleGAN2 for 1024 pixels has about 1,000.
MAX_MODULES = 10_000

# "a", "b": NCHW in [-1, 1]; "c": N class indices; "eps": N x inputs of standard normal noise; "z": N x
# z_dim
Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class DataInfo:
    """What the data decides about the networks."""

    size: tuple[int, int]  # Height and width of a training crop.
    a_channels: int = 3
    b_channels: int = 3
    num_classes: int = 0    # 0 where labels are absent or not asked for.


@dataclass(frozen=True)
class Player:
    """Modules that minimize one loss with one optimizer."""

    modules: tuple[str, ...]
    optimizer: Spec
    schedule: Spec = field(default_factory=lambda: Spec("constant"))
    clip: float = 0.0   # Largest absolute value of a parameter after each step; 0: no limit.


def clip_value(penalty: Spec) -> float:
    """What the penalty asks of the critic's Player as `clip`."""
    return float(build("penalty", penalty).clip)


def check_critics(penalty: Spec, *critics: nn.Module) -> None:
    """RequestError if a gradient penalty is asked for a critic with batch norm: a gradient with respect to
    one image is then no property of that image, and the penalty would not hold what it promises.  Gulrajani
    et al. 2017, section 4, "No critic batch normalization"."""
    mixed = build("penalty", penalty).uses_input_gradients and any(uses_batch_statistics(critic) for critic in critics)
    require(not mixed, "penalty", penalty.name,
            "none, with a discriminator that has batch norm, which mixes the images of a batch, so that "
            "a gradient belongs to no single one (Gulrajani et al. 2017, section 4); or set "
            "discriminator.norm=instance")


def twice_differentiated(penalty: Spec, *critics: str) -> tuple[str, ...]:
    """Those of the critics that the penalty differentiates twice: all or none."""
    return critics if build("penalty", penalty).uses_input_gradients else ()


def build_augment(augment: Spec, adversarial: Spec) -> Augment:
    """What D sees of an image.  RequestError if it follows the sign of D's logits where the loss gives that
    no meaning."""
    T: Augment = build("augment", augment)
    loss: Adversarial = build("adversarial", adversarial)
    require(not T.adaptive or loss.decision_boundary is not None, "augment", augment.name,
            f"none, diffaugment, or ada of a fixed strength (augment.speed=0 "
            f"augment.p=0.3), with adversarial={adversarial.name}: only differences of its logits mean "
            "something, and ada follows their sign")
    return T


def observe(T: Augment, adversarial: Adversarial, real_logits: Tensor, progress: Progress) -> None:
    """Tell T once in a step how sure D is of real images."""
    if adversarial.decision_boundary is not None:
        T.observe(real_logits - adversarial.decision_boundary, progress.batch_size)


def get_module(m: nn.ModuleDict, name: str) -> Any:
    """A module by name, whose own attributes and methods may be used."""
    return m[name]


def set_progress(m: nn.ModuleDict, progress: Progress) -> None:
    """Tell networks that grow how far the run is."""
    for network in m.values():
        if callable(method := getattr(network, "set_progress", None)):
            method(progress.fraction)


def set_checkpointing(recipe: Recipe, m: nn.ModuleDict, wanted: bool) -> None:
    """Tell the generators whether to keep their activations.  RequestError if they are to be computed again
    and none has stages to do it in."""
    able = [network for name in recipe.averaged for network in m[name].modules()
            if hasattr(network, "gradient_checkpointing")]
    require(bool(able) or not wanted, "train.gradient_checkpointing", str(wanted).lower(),
            "false, with a generator that has no stages")
    for network in able:
        network.gradient_checkpointing = wanted      # type: ignore[assignment]


def meta_networks(recipe: Recipe, info: DataInfo) -> nn.ModuleDict:
    """Everything that has state, as shapes without memory.  RequestError where it is too much to be meant,
    before it is built."""
    with torch.device("meta"), _limit_modules(), check_tensor_sizes():
        return recipe.modules(info)


@contextmanager
def check_tensor_sizes() -> Iterator[None]:
    """RequestError, instead of errors of Python's or torch's, where tensors would have more numbers than can
    be counted."""
    try:
        yield
    except (RuntimeError, OverflowError, TypeError) as error:
        if not isinstance(error, OverflowError) and "overflow" not in str(error).lower():
            raise
        text = str(error).splitlines()[0][:120]
        raise RequestError(f"a tensor would have over 2^63 bytes ({text}); smaller are train.batch_size, "
                           "data.size and the networks' widths") from None


@contextmanager
def _limit_modules() -> Iterator[None]:
    left, mine = MAX_MODULES, threading.get_ident()

    def count(module: nn.Module, name: str, child: object) -> None:
        nonlocal left
        left -= threading.get_ident() == mine
        require(left > 0, "layers of the networks", f"more than {MAX_MODULES:,}",
                "fewer, by smaller numbers of blocks, layers or the like")

    handles = register_module_module_registration_hook(count), register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Update(Protocol):
    """One gradient step of one player: the only way a recipe changes a parameter."""

    def __call__(self, player: str, loss: Tensor, /, **logs: Tensor) -> None:
        """Minimize `loss` over the player's parameters; `logs` are averaged and written to the log."""
        ...


class Recipe(Protocol):
    """An algorithm.  A frozen dataclass whose fields are its settings."""

    # The kind of data set it learns from, by name: paired, unpaired or images.
    dataset: ClassVar[str]
    # Generated key -> batch key of the images it should look like.
    targets: ClassVar[Mapping[str, str]]
    # Generated key -> batch key of the images it is made from; empty: from noise.
    sources: ClassVar[Mapping[str, str]]
    averaged: ClassVar[tuple[str, ...]]         # Modules of which an average is kept and used to generate.

    @property
    def needs(self) -> tuple[str, ...]:
        """Batch keys it reads."""
        ...

    @property
    def players(self) -> Mapping[str, Player]:
        """Who minimizes what with what."""
        ...

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """Modules of which second derivatives are taken, which torch.compile cannot give: under gradient
        penalties, path length, unrolling."""
        ...

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """Everything that has state."""
        ...

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """One iteration of the paper's algorithm."""
        ...

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """Images from those sides of a batch that are there, or from its noise; called without gradients, in
        eval mode."""
        ...

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """The discriminator's logits for the images of a batch, as they are; called without gradients, in
        eval mode."""
        ...
