"""Augmentation of what D sees (i2i/augment), and the feedback that adaptive augmentation needs."""

from i2i.augment.base import Augment
from i2i.errors import require
from i2i.losses.adversarial import Adversarial
from i2i.recipes.discriminator_outputs import Logits, join_logits
from i2i.registry import Spec, build
from i2i.seeding import Progress


def build_augment(augment: Spec, adversarial: Spec, channels: tuple[int, ...], size: tuple[int, int], *,
                  twice: bool) -> Augment:
    """Build the augmentation.  RequestError if it adapts to D's logits and their sign has no meaning.

    The rest as in `Augment.check`.
    """
    T: Augment = build("augment", augment)
    loss: Adversarial = build("adversarial", adversarial)
    require(not T.adaptive or loss.decision_boundary is not None, "augment", augment.name,
            "none, diffaugment, or ada of a fixed strength (augment.speed=0 augment.p=0.3) with "
            f"adversarial={adversarial.name}: only differences of its logits have a meaning, and ada follows "
            "their sign")
    T.check(channels, size, twice=twice)
    return T


def adapt_augment(T: Augment, adversarial: Adversarial, real_logits: Logits, progress: Progress) -> None:
    """Report D's confidence on real images to an adaptive augmentation, once a step."""
    if adversarial.decision_boundary is not None:
        T.observe(join_logits(real_logits) - adversarial.decision_boundary, progress.batch_size)
