"""What to try against a collapse, as command lines that the run's recipe accepts on its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from i2i.registry import build
from i2i.training.job import Job
from i2i.training.plan import command

MAX_ADVICE = 4


@dataclass(frozen=True)
class Advice:
    """Why something may help, and the command line."""

    reason: str
    command: str


# Reason and settings, the cheapest or best founded first.
INTER_CLASS = (
    ("D compares an image with its class by an inner product (Miyato and Koyama 2018)",
     "discriminator.condition=projection"),
    ("every norm of G is conditioned on the class (de Vries et al. 2017)", "generator.condition=batchnorm"),
)
GENERAL = (
    ("D sees two images at once and notices that they are alike (PacGAN, Lin et al. 2018)", "pack=2"),
    ("D sees how much a batch varies (Karras et al. 2018)", "discriminator.group=4"),
    ("D cannot become steep around real images (Mescheder et al. 2018)", "penalty=r1"),
    ("D, without batch norm, cannot become steep around real images (Mescheder et al. 2018)",
     "discriminator.norm=none penalty=r1"),
    ("D, without batch norm, cannot become steep around real images (Mescheder et al. 2018)",
     "discriminator.norm=instance penalty=r1"),
    ("paired logits and both penalties: no image may be dropped (R3GAN, Huang et al. 2024)",
     "adversarial=rpgan penalty=r1r2 discriminator.norm=none"),
    ("D looks further ahead than G moves (Metz et al. 2017)",
     "unrolling=adam unrolling.steps=5 unrolling.second_order=false"),
    ("D sees augmented images, so it cannot memorize a few of them (Karras et al. 2020a)", "augment=ada"),
)
TRANSLATION = (
    ("D is Lipschitz (Miyato et al. 2018)", "d_weight_norm=spectral"),
    ("the squared loss does not saturate when D is certain (Mao et al. 2017)", "adversarial=lsgan"),
)


def collapse_advice(kind: str, translates: bool, attempt: Callable[[Sequence[str]], str | None],
                    lower_rates: Sequence[str] = ()) -> list[Advice]:
    """At most four pieces of advice.

    Args:
        kind: of collapse.
        translates: whether the recipe translates images.
        attempt: returns the command line with these assignments, None if they are refused or change nothing.
        lower_rates: assignments for lower learning rates, which are always possible.
    """
    candidates = [*(INTER_CLASS if kind == "inter-class" else ()), *(TRANSLATION if translates else ()),
                  *GENERAL]
    chosen: dict[str, Advice] = {}
    for reason, text in candidates:
        assignments = text.split()
        topic = "penalty=r1" if "penalty=r1" in assignments else text       # Only one way to have it.
        line = attempt(assignments)
        if line and topic not in chosen and len(chosen) < MAX_ADVICE - bool(lower_rates):
            chosen[topic] = Advice(reason, line)
    if lower_rates and (line := attempt(lower_rates)):
        chosen["rates"] = Advice("both players take steps half as long", line)
    return list(chosen.values())


def advice_for(job: Job, kind: str) -> list[Advice]:
    """What to try against a kind of collapse of this job."""
    halved = []
    for key in ("g_optimizer", "d_optimizer"):
        if hasattr(job.recipe, key):
            optimizer = build("optimizer", getattr(job.recipe, key), [torch.zeros(1, requires_grad=True)])
            halved.append(f"{key}.lr={optimizer.param_groups[0]['lr'] / 2:g}")
    return collapse_advice(kind, bool(job.recipe.sources), lambda assignments: command(job, assignments),
                           halved)
