"""What to try against a collapse, in the words of the command line, and why.  Only what a run's recipe
accepts is proposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from i2i.training.callbacks.collapse_detector import Advice

MAX_ADVICE = 4            # Proposals: what comes first is cheapest or best founded.
# Words -> the whole command line, None if they are refused or change nothing.
Attempt = Callable[[Sequence[str]], str | None]

LABELS = (
    ("D compares an image with its class by an inner product (Miyato and Koyama 2018)",
     "discriminator.condition=projection"),
    ("every norm of G is told the class (de Vries et al. 2017)", "generator.condition=batchnorm"),
)
ALIKE = (
    ("D sees two images at once and notices that they are alike (PacGAN, Lin et al. 2018)", "pack=2"),
    ("D sees how much a batch varies (Karras et al. 2018)", "discriminator.group=4"),
    ("D cannot become steep around real images (Mescheder et al. 2018)", "penalty=r1"),
    ("D, without batch norm, cannot become steep around real images (Mescheder et al. 2018)",
     "discriminator.norm=none penalty=r1"),
    ("D, without batch norm, cannot become steep around real images (Mescheder et al. 2018)",
     "discriminator.norm=instance penalty=r1"),
    ("paired logits, both penalties: no image may drop out (R3GAN, Huang et al. 2024)",
     "adversarial=rpgan penalty=r1r2 discriminator.norm=none"),
    ("D looks further ahead than G moves (Metz et al. 2017)",
     "unrolling=adam unrolling.steps=5 unrolling.second_order=false"),
    ("D sees varied images, so it cannot learn few of them by heart (Karras et al. 2020a)", "augment=ada"),
)
TRANSLATING = (
    ("D's decisions are bounded in steepness (Miyato et al. 2018)", "d_weight_norm=spectral"),
    ("squares do not saturate when D is sure (Mao et al. 2017)", "adversarial=lsgan"),
)


def collapse_advice(kind: str, translates: bool, attempt: Attempt, rates: Sequence[str] = ()) -> list[Advice]:
    """At most four proposals for a kind of collapse; `rates` are words for a lower learning rate, which
    always applies."""
    first = LABELS if kind == "inter-class" else ()
    candidates = [*first, *(TRANSLATING if translates else ()), *ALIKE]
    found: dict[str, Advice] = {}
    for why, words in candidates:
        command = attempt(words.split())
        subject = words.split()[-1] if "penalty=r1" in words.split() else words
        if command and subject not in found and len(found) < MAX_ADVICE - bool(rates):
            found[subject] = Advice(why, command)
    if rates and (command := attempt(rates)):
        found["rates"] = Advice("both players move half as far at each step", command)
    return list(found.values())
