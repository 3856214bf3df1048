"""What keeps two players in balance and a generator from repeating itself, as settings that all recipes have;
docs/stabilizers.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from i2i.errors import require
from i2i.losses.adversarial import Adversarial
from i2i.losses.feature_matching import FeatureMatching
from i2i.losses.penalties import Critic, lazy_penalty
from i2i.nets.historical_average import HistoricalAverage
from i2i.nets.packing import pack_images, unpack_images
from i2i.nets.precision import to_float32
from i2i.nets.virtual_batch_norm import get_reference_batch
from i2i.recipes.base import Player, Update, get_module, twice_differentiated
from i2i.registry import Spec, build, component
from i2i.seeding import Progress

# A discriminator, or one ahead of its time; NCHW -> logits.
Discriminators = Callable[[Any, Tensor], Tensor]


def parameters_of(m: nn.ModuleDict, player: Player) -> list[Tensor]:
    """All that a player learns."""
    return [p for name in player.modules for p in m[name].parameters()]


@dataclass(frozen=True, kw_only=True)
class Stabilizers:
    """Settings of their own; those that are part of a loss, a network, a prior or an optimizer are options
    there."""

    penalty: Spec = component("penalty", "none")
    pack: int = 1                       # Images that D judges as one.  Lin et al. 2018.
    instance_noise: Spec = component("instance_noise", "none")
    feature_matching: Spec = component("feature_matching", "none")
    unrolling: Spec = component("unrolling", "none")
    # Of |theta - its mean over all steps|^2, in both players' losses.  Salimans et al. 2016, section 3.3.
    lambda_history: float = 0.0
    d_steps: int = 1                    # Updates of D for each update of G, each with images of its own.
    g_steps: int = 1                    # Updates of G for each update of D, likewise.

    def __post_init__(self) -> None:
        require(self.pack >= 1, "pack", self.pack, "1 or more")
        require(self.lambda_history >= 0, "lambda_history", self.lambda_history, "0 or more")
        for key in ("d_steps", "g_steps"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "1 or more")
        require(min(self.d_steps, self.g_steps) == 1, "g_steps", self.g_steps,
                f"1, with d_steps={self.d_steps}: only one player can have more turns")

    def turns(self, progress: Progress) -> tuple[bool, bool]:
        """Whose turn it is in this step: D's, G's."""
        return progress.every(self.g_steps), progress.every(self.d_steps)

    def critics_twice(self, *critics: str) -> tuple[str, ...]:
        """Those of the critics of which second derivatives are taken: by a penalty, or by G through the steps
        ahead; all or none."""
        return critics if self.unrolling.name != "none" else twice_differentiated(self.penalty, *critics)

    def add_remedies(self, m: nn.ModuleDict, players: Mapping[str, Player]) -> None:
        """N: noise on what D sees; U: D ahead of its time, where G can look at one D; H_D and H_G: what the
        players have been, if that counts."""
        m["N"] = build("instance_noise", self.instance_noise)
        if "D" in m:
            m["U"] = build("unrolling", self.unrolling, m["D"])
            ahead = get_module(m, "U").steps > 0
            require(not ahead or self.penalty.name == "none", "unrolling", self.unrolling.name,
                    "none, with a penalty: the steps ahead are of the adversarial loss alone, and its "
                    "gradient would be differentiated thrice")
        if self.lambda_history:
            for name, player in players.items():
                m[f"H_{name}"] = HistoricalAverage(parameters_of(m, player))

    def drawn(self, m: nn.ModuleDict, update: Update, players: Mapping[str, Player]) -> Update:
        """`update` with each player drawn to the mean of its past, if that counts."""
        if not self.lambda_history:
            return update

        def both(player: str, loss: Tensor, /, **logs: Tensor) -> None:
            history, parameters = get_module(m, f"H_{player}"), parameters_of(m, players[player])
            away = history(parameters)
            update(player, loss + self.lambda_history * away, **logs, **{f"history_{player}": away})
            history.update(parameters)

        return both

    def compare(self, D: nn.Module, shown: Callable[[], tuple[Any, ...]]) -> None:
        """Give D the real images, as it is shown them, of the first step for its virtual batch norm to
        compare with, if it has one."""
        if (compared := get_reference_batch(D)) is not None:
            compared.initialize(*shown())

    def penalized(self, progress: Progress, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """The penalty of this turn of D, on packs where there are any: a gradient is then one with respect to
        a whole pack.  -> ()"""
        return lazy_penalty(build("penalty", self.penalty), progress.step // self.g_steps,
                         lambda packs: critic(unpack_images(packs, self.pack)),
                         pack_images(real, self.pack), pack_images(fake, self.pack))

    def ahead(self, m: nn.ModuleDict, adversarial: Adversarial, critic: Discriminators, real: Tensor,
              fake: Tensor) -> Any:
        """D as G is to see it: as it is, or after some steps against these images."""
        D, U = get_module(m, "D"), get_module(m, "U")
        real, fake = to_float32(real), to_float32(fake) if U.second_order else to_float32(fake.detach())
        return U(D, lambda D: adversarial.d(critic(D, real), critic(D, fake))) if U.steps else D

    def matched(self, D: Any, shown: Callable[[Tensor], tuple[Any, ...]], real: Tensor, fake: Tensor,
                gan: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversarial loss of G and what its images are to share with real ones in D's eyes; `shown`:
        what D is given of images.  -> (), logs"""
        matching: FeatureMatching = build("feature_matching", self.feature_matching)
        if not matching.weight:
            return gan, {}
        apart = matching(D.features(*shown(real)), D.features(*shown(fake)))
        return matching.gan * gan + matching.weight * apart, {"feature_matching": apart}

    def check_matching(self, D: nn.Module, discriminator: str, *, pairs: bool) -> None:
        """RequestError unless D shows its features, and what is compared image by image belongs together."""
        matching: FeatureMatching = build("feature_matching", self.feature_matching)
        require(not matching.weight or hasattr(D, "features"), "feature_matching", self.feature_matching.name,
                f"none, with discriminator={discriminator}, whose features nobody sees; or dcgan, mlp, "
                "sagan, patch")
        require(pairs or not matching.paired, "feature_matching", self.feature_matching.name,
                "means, or none: no generated image belongs to a real one here, so only their means can be "
                "compared")
