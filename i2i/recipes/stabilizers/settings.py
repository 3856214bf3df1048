"""The stabilizer settings that all recipes share."""

from dataclasses import dataclass
from typing import Annotated

from typing_extensions import Doc

from i2i.errors import require
from i2i.registry import Spec, build, component
from i2i.seeding import Progress

AdversarialLoss = Annotated[Spec, Doc("Adversarial loss of D and G")]
GOptimizer = Annotated[Spec, Doc("Optimizer of G")]
DOptimizer = Annotated[Spec, Doc("Optimizer of D")]
Schedule = Annotated[Spec, Doc("Schedule of the learning rates")]


@dataclass(frozen=True, kw_only=True)
class StabilizerSettings:
    """Fields that every recipe inherits; all are off by default."""

    augment: Annotated[Spec, Doc("Augmentation of all images that D sees")] = component("augment", "none")
    g_weight_norm: Annotated[Spec, Doc("Normalization of G's weights")] = component("weight_norm", "none")
    d_weight_norm: Annotated[Spec, Doc("Normalization of D's weights")] = component("weight_norm", "none")
    penalty: Annotated[Spec, Doc("Gradient penalty or weight clipping of D")] = component("penalty", "none")
    pack: Annotated[int, Doc("Images that D sees as one sample (Lin et al. 2018)")] = 1
    instance_noise: Annotated[Spec, Doc("Noise on all images that D sees")] = component(
        "instance_noise", "none")
    feature_matching: Annotated[Spec, Doc("Distance of D's features in G's loss")] = component(
        "feature_matching", "none")
    unrolling: Annotated[Spec, Doc("Steps of D that G anticipates")] = component("unrolling", "none")
    lambda_history: Annotated[float, Doc(
        "Weight of historical averaging (Salimans et al. 2016, section 3.3)")] = 0.0
    d_steps: Annotated[int, Doc("Updates of D for each update of G, each on a new batch")] = 1
    g_steps: Annotated[int, Doc("Updates of G for each update of D, each on a new batch")] = 1

    def __post_init__(self) -> None:
        require(self.pack >= 1, "pack", self.pack, "1 or more")
        require(self.lambda_history >= 0, "lambda_history", self.lambda_history, "0 or more")
        for key in ("d_steps", "g_steps"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "1 or more")
        require(min(self.d_steps, self.g_steps) == 1, "g_steps", self.g_steps,
                f"1 with d_steps={self.d_steps}: only one player can have more updates than the other")

    @property
    def needs_second_derivatives(self) -> bool:
        """Whether second derivatives of D are taken: by a gradient penalty or through unrolled steps."""
        return self.unrolling.name != "none" or build("penalty", self.penalty).uses_input_gradients

    def updated_players(self, progress: Progress) -> tuple[bool, bool]:
        """Whether D and G are updated in this step.  Goodfellow et al. 2014, algorithm 1 (k)."""
        return progress.every(self.g_steps), progress.every(self.d_steps)
