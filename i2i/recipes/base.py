"""What the engine knows of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor, nn

from i2i.clock import Clock
from i2i.nets.norms import mixes_images
from i2i.spec import Spec, build, require

Batch = Mapping[str, Tensor]  # "a", "b": NCHW in [-1, 1]


@dataclass(frozen=True)
class DataInfo:
    """What the data decides about the networks."""

    size: tuple[int, int]  # Height and width of a training crop.
    a_channels: int = 3
    b_channels: int = 3


@dataclass(frozen=True)
class Player:
    """Modules that minimise one loss with one optimiser."""

    modules: tuple[str, ...]
    optimiser: Spec
    schedule: Spec = field(default_factory=lambda: Spec("constant"))


def check_critics(penalty: Spec, *critics: nn.Module) -> None:
    """RequestError if a gradient penalty is asked for a critic with batch norm: a gradient with respect to one image is then no property
    of that image, and the penalty would not hold what it promises.  Gulrajani et al. 2017, section 4, "No critic batch normalization"."""
    mixed = build("penalty", penalty).differentiates and any(mixes_images(critic) for critic in critics)
    require(not mixed, "penalty", penalty.name, "none, with a discriminator that has batch norm, which mixes the images of a batch, so that "
            "a gradient belongs to no single one (Gulrajani et al. 2017, section 4); or set discriminator.norm=instance")


class Update(Protocol):
    """One gradient step of one player: the only way a recipe changes a parameter."""

    def __call__(self, player: str, loss: Tensor, /, **logs: Tensor) -> None:
        """Minimise `loss` over the player's parameters; `logs` are averaged and written to the log."""
        ...


class Recipe(Protocol):
    """An algorithm.  A frozen dataclass whose fields are its settings."""

    dataset: ClassVar[str]                      # The kind of data set it learns from, by name: paired or unpaired.
    needs: ClassVar[tuple[str, ...]]            # Batch keys it reads.
    targets: ClassVar[Mapping[str, str]]        # Generated key -> batch key of the images it should look like.
    sources: ClassVar[Mapping[str, str]]        # Generated key -> batch key of the images it is made from.
    averaged: ClassVar[tuple[str, ...]]         # Modules of which an average is kept and used to generate.

    @property
    def players(self) -> Mapping[str, Player]:
        """Who minimises what with what."""
        ...

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """Everything that has state."""
        ...

    def step(self, m: nn.ModuleDict, batch: Batch, clock: Clock, update: Update) -> None:
        """One iteration of the paper's algorithm."""
        ...

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """Images from those sides of a batch that are there; called without gradients, in eval mode."""
        ...

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """The discriminator's logits for the images of a batch, as they are; called without gradients, in eval mode."""
        ...
