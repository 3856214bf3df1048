"""The interface between recipes and the training engine."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from i2i.errors import require
from i2i.registry import Spec, schema
from i2i.seeding import Progress

# Keys of a batch:
#   "a", "b"  images (N, C, H, W) in [-1, 1], source and target
#   "c"       class indices (N,)
#   "eps"     standard normal noise (N, Z.noise_dim), which the prior Z maps to "z"
#   "z"       latent vectors (N, z_dim)
Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class DataInfo:
    """The properties of a dataset that determine the shapes of the networks."""

    size: tuple[int, int]   # Height and width of a training crop.
    a_channels: int = 3
    b_channels: int = 3
    num_classes: int = 0    # 0 if there are no labels, or they are not used.
    a_colors: tuple[tuple[float, ...], ...] = ()    # Of source label maps, in [-1, 1], where each is a class.


@dataclass(frozen=True)
class Player:
    """Modules that minimize one loss with one optimizer."""

    modules: tuple[str, ...]
    optimizer: Spec
    schedule: Spec = field(default_factory=lambda: Spec("constant"))
    clip: float = 0.0       # Parameters are clamped to [-clip, clip] after each step; 0: no limit.


@dataclass(frozen=True)
class Family:
    """What the models of a recipe can do, as a declaration for people; `i2i list family` prints it.

    Args:
        density: whether a model has the likelihood of an image, exactly or as a lower bound (see `Scores`).
        inversion: whether it can go back from an image to what it would be made from.
        steps: network calls for one image, the setting that says how many, or "pixels", one for each.
    """

    name: str = "GAN"
    density: Literal["none", "bound", "exact"] = "none"
    inversion: Literal["none", "approximate", "exact"] = "none"
    steps: int | str = 1


class Update(Protocol):
    """Take one gradient step for one player: the only way in which a recipe changes parameters."""

    def __call__(self, player: str, loss: Tensor, /, **logs: Tensor) -> None:
        """Minimize `loss` over the player's parameters; `logs` are scalars to average and log."""


class Recipe(Protocol):
    """A training algorithm: a frozen dataclass whose fields are its settings.

    A recipe from noise has a module `Z` with a `noise_dim`, the length of "eps", which holds all that is
    random in an image: `generate` may call a network many times, and draws nothing of its own.  What a recipe
    can do beside it are methods that some have: `Discriminates`, `Scores`, `Reconstructs`, `Inverts`.
    """

    family: ClassVar[Family]
    dataset: ClassVar[str]                      # Kind of dataset: paired, unpaired or images.
    targets: ClassVar[Mapping[str, str]]        # Generated key -> batch key of what it should look like.
    sources: ClassVar[Mapping[str, str]]        # Generated key -> batch key of its source; empty: noise.
    # Modules that generate, score and reconstruct; an average of their weights is kept, which is the model.
    ema_modules: ClassVar[tuple[str, ...]]

    @property
    def required_keys(self) -> tuple[str, ...]:
        """Batch keys that `step` reads."""

    @property
    def players(self) -> Mapping[str, Player]:
        """The players by name."""

    @property
    def second_order_modules(self) -> tuple[str, ...]:
        """Modules that are differentiated twice, which torch.compile does not support."""

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """Build all networks and everything else that has state."""

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Run one iteration of the algorithm, calling `update` for each player it changes."""

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """Images made from the sources or the noise in a batch; called in eval mode without gradients."""


@runtime_checkable
class Discriminates(Protocol):
    """A recipe with a discriminator, whose logits are compared and whose generator can collapse."""

    def discriminate(self, m: nn.ModuleDict, batch: Batch) -> Tensor | list[Tensor] | tuple[Any, ...]:
        """D's logits of the images in a batch, unaugmented, for each of its outputs if it has several; called
        in eval mode without gradients."""


@runtime_checkable
class Scores(Protocol):
    """A recipe with a density, exact or bounded as its family says."""

    def score(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """Bits per dimension of the images "b" in a batch, (N,), or an upper bound on them; called in eval
        mode without gradients.  What is random is drawn by torch's generator, which the caller seeds."""


@runtime_checkable
class Reconstructs(Protocol):
    """A recipe that encodes images and decodes them."""

    def reconstruct(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """The images "b" in a batch as the model can express them, (N, C, H, W); called in eval mode without
        gradients."""


@runtime_checkable
class Inverts(Protocol):
    """A recipe from noise that goes back from an image to the noise it would be made from."""

    def invert(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """"eps", (N, noise_dim), from which `generate` makes the images "b" in a batch, exactly or nearly as
        its family says; called in eval mode without gradients."""


def get_module(m: nn.ModuleDict, name: str) -> Any:
    """`m[name]`, typed so that its own attributes and methods can be used."""
    return m[name]


def set_progress(m: nn.ModuleDict, progress: Progress) -> None:
    """Pass how far they should be to growing networks, fading noise and the like."""
    for module in m.values():
        if callable(method := getattr(module, "set_progress", None)):
            method(progress.growth_fraction)


def data_defaults(recipe: Recipe, info: DataInfo) -> dict[str, tuple[Any, str]]:
    """Settings that have another default with these data, and why: those of the recipe's method, if any."""
    method = getattr(recipe, "data_defaults", None)
    return method(info) if callable(method) else {}


def class_channels(recipe: Recipe, channels: int) -> int:
    """How many of the source's channels are a color that stands for a class: what the recipe's method of that
    name says; 0, so that colors need not be known, if it has none."""
    method = getattr(recipe, "class_channels", None)
    return int(method(channels)) if callable(method) else 0


def feature_networks(recipe: Recipe) -> tuple[str, ...]:
    """Names of the feature networks that a recipe trains with: its components' options called `features`."""
    found: list[str] = []
    for setting in dataclasses.fields(recipe):  # type: ignore[arg-type]
        if isinstance(spec := getattr(recipe, setting.name), Spec):
            defaults = {key: option.default
                        for key, option in schema(setting.metadata["kind"], spec.name).items()}
            found += [value for key, value in (defaults | dict(spec.options)).items()
                      if key.rpartition(".")[2] == "features" and value]
    return tuple(dict.fromkeys(found))


def set_checkpointing(recipe: Recipe, m: nn.ModuleDict, enabled: bool) -> None:
    """Turn gradient checkpointing of the generators on or off.  RequestError if none supports it."""
    stages = [module for name in recipe.ema_modules for module in m[name].modules()
              if hasattr(module, "gradient_checkpointing")]
    require(bool(stages) or not enabled, "train.gradient_checkpointing", str(enabled).lower(),
            "false with this generator, which does not support it")
    for module in stages:
        module.gradient_checkpointing = enabled      # type: ignore[assignment]
