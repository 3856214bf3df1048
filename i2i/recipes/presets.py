"""Presets: known methods as a recipe with settings, in the form of the command line.

They are sized for images of 32 to 64 pixels and a few thousand examples, with about half the papers' batch
sizes. Where a paper's networks are built for another scale, only the loss and its stabilizers are the paper's
and the network is the plain convolutional one.  Those that translate images have the papers' networks.
"""

from dataclasses import dataclass

from i2i.registry import register


@dataclass(frozen=True)
class Preset:
    """A recipe, KEY=VALUE settings for it, and the paper they come from."""

    recipe: str
    settings: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if isinstance(self.settings, str):
            raise TypeError(f"settings is a text; accepted: a tuple, such as {tuple(self.settings.split())}")


def _adam(lr: float, beta1: float, beta2: float, d_lr: float | None = None) -> str:
    """Settings of Adam for both players."""
    rates = {"g": lr, "d": d_lr or lr}
    return " ".join(f"{player}_optimizer.{key}={value}" for player, rate in rates.items()
                    for key, value in (("lr", rate), ("beta1", beta1), ("beta2", beta2)))


_32 = "train.batch_size=32"
_NO_NORM = f"discriminator.norm=none {_32}"
_WGAN_GP = f"adversarial=wasserstein penalty=wgan-gp {_NO_NORM}"
_PROGRESSIVE = f"discriminator=progressive train.batch_size=16 {_adam(1e-3, 0.0, 0.99)}"
_STYLEGAN2 = ("generator=stylegan2 discriminator=stylegan2 penalty=r1 penalty.gamma=1 penalty.every=16 "
              f"g_penalty=path-length train.batch_size=16 {_adam(2e-3, 0.0, 0.99)}")
_PYRAMID = "discriminator=multiscale feature_matching=layers lambda_l1=0 source_encoding=auto"

_PRESETS = (
    ("dcgan", "gan", _32, "Radford et al. 2016"),
    ("lsgan", "gan", f"adversarial=lsgan {_32}", "Mao et al. 2017"),
    ("wgan", "gan", "adversarial=wasserstein penalty=clip d_steps=5 g_optimizer=rmsprop d_optimizer=rmsprop "
     + _32, "Arjovsky et al. 2017"),
    ("wgan-gp", "gan", f"d_steps=5 {_WGAN_GP} {_adam(1e-4, 0.0, 0.9)}", "Gulrajani et al. 2017"),
    ("dragan", "gan", f"penalty=dragan {_NO_NORM}", "Kodali et al. 2017"),
    ("sngan", "gan", f"adversarial=hinge d_weight_norm=spectral {_NO_NORM}", "Miyato et al. 2018"),
    ("rpgan", "gan", f"adversarial=rpgan {_NO_NORM}", "Jolicoeur-Martineau 2019"),
    ("r3gan", "gan", f"adversarial=rpgan penalty=r1r2 penalty.gamma=1 {_NO_NORM} {_adam(2e-4, 0.0, 0.99)}",
     "Huang et al. 2024"),
    ("sagan", "gan", "generator=sagan discriminator=sagan adversarial=hinge g_weight_norm=spectral "
     f"d_weight_norm=spectral {_32} {_adam(1e-4, 0.0, 0.9, 4e-4)}",
     "Zhang et al. 2019; two time scales: Heusel et al. 2017"),
    ("cgan", "gan", f"conditional=true {_32}", "Mirza and Osindero 2014"),
    ("msgan", "gan", f"adversarial=hinge d_weight_norm=spectral {_NO_NORM} conditional=true "
     "discriminator.condition=projection generator.width=32 discriminator.width=32 g_penalty=mode-seeking "
     "g_penalty.weight=0.1 g_penalty.shrink=4 augment=diffaugment augment.policy=translation schedule=linear "
     f"train.ema_half_life=4k {_adam(4e-4, 0.5, 0.999)}",
     "Mao et al. 2019; projection: Miyato and Koyama 2018"),
    ("infogan", "infogan", _32, "Chen et al. 2016"),
    ("progan", "gan", f"generator=progressive adversarial=wasserstein penalty=wgan-gp {_PROGRESSIVE}",
     "Karras et al. 2018"),
    ("stylegan", "gan", f"generator=stylegan penalty=r1 {_PROGRESSIVE}", "Karras et al. 2019"),
    ("stylegan2", "gan", _STYLEGAN2, "Karras et al. 2020b"),
    ("stylegan2-ada", "gan", f"{_STYLEGAN2} augment=ada", "Karras et al. 2020a"),
    ("pacgan", "gan", f"pack=2 {_32}", "Lin et al. 2018"),
    ("unrolled", "gan", f"unrolling=adam unrolling.steps=5 {_32}", "Metz et al. 2017"),
    ("deligan", "gan", f"latent=mixture {_32}", "Gurumurthy et al. 2017"),
    ("vae", "vae", _32, "Kingma and Welling 2014"),
    ("flow", "flow", _32, "Dinh et al. 2017"),
    ("autoregressive", "autoregressive", _32, "Salimans et al. 2017"),
    ("diffusion", "diffusion", _32, "Ho et al. 2020; DDIM: Song et al. 2021a"),
    ("rectified-flow", "rectified-flow", _32, "Liu et al. 2023; Lipman et al. 2023"),
    ("cut", "cut", "", "Park et al. 2020"),
    ("fastcut", "cut", "lambda_nce=10 nce_identity=false flip_equivariance=true",
     "Park et al. 2020: half the time, for images whose layout stays"),
    ("ttur", "gan", f"{_WGAN_GP} {_adam(1e-4, 0.0, 0.9, 3e-4)}",
     "Heusel et al. 2017: WGAN-GP with one update of D for each of G"),
    ("pix2pixhd", "pix2pix", f"generator=pix2pixhd adversarial=lsgan {_PYRAMID} feature_matching.gan=2",
     "Wang et al. 2018, without the perceptual loss"),
    ("spade", "pix2pix", f"generator=spade adversarial=hinge {_PYRAMID} train.batch_size=8 "
     f"{_adam(1e-4, 0.0, 0.9, 4e-4)}", "Park et al. 2019, without the perceptual loss"),
    ("pix2pix-drawings", "pix2pix", "generator.up=resize generator.input_skip=16 generator.dropout=0 "
     "data.jitter=false lambda_l1=1000 g_optimizer.lr=1e-3 train.batch_size=8",
     "Isola et al. 2017, with settings for drawings of one scale whose lines stay, in minutes"),
    ("cyclegan-drawings", "cyclegan", "generator=unet generator.width=16 generator.depth=4 "
     "generator.norm=instance generator.dropout=0 generator.up=resize generator.input_skip=16 "
     "discriminator.width=32 discriminator.layers=2 data.jitter=false train.batch_size=4 "
     "train.ema_half_life=1k augment=diffaugment "
     f"augment.policy=translation {_adam(5e-4, 0.5, 0.999)}",
     "Zhu et al. 2017, with settings for drawings of one scale whose lines stay, in minutes"),
    ("palette", "palette", "train.batch_size=16", "Saharia et al. 2022"),
    ("bbdm", "bbdm", "train.batch_size=16", "Li et al. 2023, in pixels"),
)
PRESETS = {name: Preset(recipe, tuple(settings.split()), source)
           for name, recipe, settings, source in _PRESETS}
for _name, _preset in PRESETS.items():
    register("preset", _name)(_preset)
