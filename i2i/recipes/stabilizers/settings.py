"""The stabilizer settings that all recipes share."""

from dataclasses import dataclass

from i2i.errors import require
from i2i.registry import Spec, build, component
from i2i.seeding import Progress


@dataclass(frozen=True, kw_only=True)
class StabilizerSettings:
    """Fields that every recipe inherits; all are off by default."""

    augment: Spec = component("augment", "none")
    g_weight_norm: Spec = component("weight_norm", "none")
    d_weight_norm: Spec = component("weight_norm", "none")
    penalty: Spec = component("penalty", "none")
    pack: int = 1                       # Images that D sees as one sample.  Lin et al. 2018.
    instance_noise: Spec = component("instance_noise", "none")
    feature_matching: Spec = component("feature_matching", "none")
    unrolling: Spec = component("unrolling", "none")
    lambda_history: float = 0.0         # Weight of historical averaging.  Salimans et al. 2016, section 3.3.
    d_steps: int = 1                    # Updates of D for each update of G, each on a new batch.
    g_steps: int = 1                    # Updates of G for each update of D, each on a new batch.

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
