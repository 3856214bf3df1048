"""Names that people know: each a recipe and the settings that make it so, in the words of the command line.

They are for pictures of 32 to 64 pixels and a few thousand examples; batch sizes of the papers are halved or
so.  Where a paper's networks belong to another scale, the loss and its stabilizers are the paper's and the
network is the plain convolutional one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A recipe with settings, and where they come from."""

    recipe: str
    words: tuple[str, ...]
    source: str


def _rates(lr: float | str, beta1: float, beta2: float, d_lr: float | str | None = None) -> str:
    return " ".join(f"{player}_optimizer.{key}={value}" for player in "gd"
                    for key,
                    value in (("lr", (d_lr or lr) if player == "d" else lr), ("beta1", beta1),
                              ("beta2", beta2)))


_PLAIN = "discriminator.norm=none train.batch_size=32"
_STYLE = f"discriminator=stylegan2 {_rates(2e-3, 0.0, 0.99)} penalty=r1 penalty.gamma=1 train.batch_size=16"

PRESETS = {name: Preset(recipe, tuple(words.split()), source) for name, recipe, words, source in (
    ("dcgan", "gan", "train.batch_size=32", "Radford et al. 2016"),
    ("lsgan", "gan", "adversarial=lsgan train.batch_size=32", "Mao et al. 2017"),
    ("wgan", "gan",
     "adversarial=wasserstein penalty=clip d_steps=5 g_optimizer=rmsprop d_optimizer=rmsprop "
     "train.batch_size=32", "Arjovsky et al. 2017"),
    ("wgan-gp", "gan",
     f"adversarial=wasserstein penalty=wgan-gp d_steps=5 {_PLAIN} {_rates(1e-4, 0.0, 0.9)}",
     "Gulrajani et al. 2017"),
    ("dragan", "gan", f"penalty=dragan {_PLAIN}", "Kodali et al. 2017"),
    ("sngan", "gan", f"adversarial=hinge d_weight_norm=spectral {_PLAIN}", "Miyato et al. 2018"),
    ("rpgan", "gan", f"adversarial=rpgan {_PLAIN}", "Jolicoeur-Martineau 2019"),
    ("r3gan", "gan", f"adversarial=rpgan penalty=r1r2 penalty.gamma=1 {_PLAIN} {_rates(2e-4, 0.0, 0.99)}",
     "Huang et al. 2024"),
    ("sagan", "gan",
     f"generator=sagan discriminator=sagan adversarial=hinge g_weight_norm=spectral d_weight_norm=spectral "
                     f"train.batch_size=32 {_rates(1e-4, 0.0, 0.9, 4e-4)}",
     "Zhang et al. 2019; two time scales: Heusel et al. 2017"),
    ("cgan", "gan", "conditional=true train.batch_size=32", "Mirza and Osindero 2014"),
    ("infogan", "infogan", "train.batch_size=32", "Chen et al. 2016"),
    ("progan", "gan",
     f"generator=progressive discriminator=progressive adversarial=wasserstein penalty=wgan-gp "
     "train.batch_size=16 "
                      f"{_rates(1e-3, 0.0, 0.99)}", "Karras et al. 2018"),
    ("stylegan", "gan",
     f"generator=stylegan discriminator=progressive penalty=r1 train.batch_size=16 {_rates(1e-3, 0.0, 0.99)}", "Karras et al. 2019"),
    ("stylegan2", "gan", f"generator=stylegan2 {_STYLE} penalty.every=16 g_penalty=path-length",
     "Karras et al. 2020b"),
    ("stylegan2-ada", "gan",
     f"generator=stylegan2 {_STYLE} penalty.every=16 g_penalty=path-length augment=ada",
     "Karras et al. 2020a"),
    ("pacgan", "gan", "pack=2 train.batch_size=32", "Lin et al. 2018"),
    ("unrolled", "gan", "unrolling=adam unrolling.steps=5 train.batch_size=32", "Metz et al. 2017"),
    ("deligan", "gan", "latent=mixture train.batch_size=32", "Gurumurthy et al. 2017"),
    ("ttur", "gan", f"adversarial=wasserstein penalty=wgan-gp {_PLAIN} {_rates(1e-4, 0.0, 0.9, 3e-4)}",
     "Heusel et al. 2017, WGAN-GP with one step of each"),
)}
