"""What recipes share whose networks all minimize one loss: VAE, flow, diffusion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from typing_extensions import Doc

from i2i.recipes.base import Player
from i2i.recipes.stabilizers import Schedule
from i2i.registry import Spec, component


@dataclass(frozen=True, kw_only=True)
class OnePlayer:
    """Settings and properties of a recipe with one player, `model`; by default it makes images from noise."""

    conditional: Annotated[bool, Doc("The networks are conditioned on class labels")] = False
    optimizer: Annotated[Spec, Doc("Optimizer of all networks")] = component(
        "optimizer", "adam", lr=1e-3, beta1=0.9)
    schedule: Schedule = component("schedule", "constant")

    dataset: ClassVar[str] = "images"
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {}
    ema_modules: ClassVar[tuple[str, ...]]
    second_order_modules: ClassVar[tuple[str, ...]] = ()

    @property
    def required_keys(self) -> tuple[str, ...]:
        return (*self.sources.values(), "b", *(("c",) if self.conditional else ()))

    @property
    def players(self) -> Mapping[str, Player]:
        return {"model": Player(self.ema_modules, self.optimizer, self.schedule)}
