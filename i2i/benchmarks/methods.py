"""The methods that the benchmarks compare: each is a row of settings, as they may follow `i2i train gan`."""

from collections.abc import Sequence
from dataclasses import dataclass

from i2i.config import parse, parse_assignments
from i2i.errors import RequestError
from i2i.registry import suggest

BASELINE = "gan"


@dataclass(frozen=True)
class Method:
    """Settings that a method adds to those of a benchmark, and the paper they come from.

    Values may refer to the benchmark's settings: `*0.25` multiplies its value, `//3` rounds it down to a
    multiple of three, and the name of a setting stands for that setting's value.
    """

    name: str
    settings: tuple[str, ...]
    source: str

    @property
    def d_steps(self) -> int:
        """Training steps for each update of G."""
        return int(dict(parse_assignments(self.settings)).get("d_steps", 1))

    @property
    def has_gradient_penalty(self) -> bool:
        """Whether it differentiates with respect to images, so that D must not have batch norm."""
        return dict(parse_assignments(self.settings)).get("penalty", "clip") != "clip"

    def combine(self, common: Sequence[str], batch_size: int) -> tuple[str, ...]:
        """All settings of a run.  A component that the method replaces loses its options in `common`, the
        settings of benchmark and user.  `batch_size` is used if they do not set it."""
        base = {"train.batch_size": str(batch_size)} | dict(parse_assignments(common))

        def resolve(key: str, value: str) -> str:
            if value.startswith("*"):
                return f"{parse(key, base[key], float) * float(value[1:]):g}"
            if value.startswith("//"):
                whole = parse(key, base[key], int)
                return str(whole - whole % int(value[2:]))
            return base.get(value, value)

        own = {key: resolve(key, value) for key, value in parse_assignments(self.settings)}
        rest = {key: value for key, value in parse_assignments(common) if key.split(".")[0] not in own}
        return tuple(f"{key}={value}" for key, value in (rest | own).items())


_METHODS = (
    (BASELINE, "", "Goodfellow et al. 2014, non-saturating"),
    ("minimax", "adversarial=minimax", "Goodfellow et al. 2014, equation 1"),
    ("lsgan", "adversarial=lsgan", "Mao et al. 2017"),
    ("wgan", "adversarial=wasserstein penalty=clip penalty.limit=0.1 d_steps=5 g_optimizer=rmsprop "
     "d_optimizer=rmsprop g_optimizer.lr=*0.25 d_optimizer.lr=*0.25", "Arjovsky et al. 2017"),
    ("wgan-gp", "adversarial=wasserstein penalty=wgan-gp penalty.weight=1 d_steps=5",
     "Gulrajani et al. 2017"),
    ("dragan", "penalty=dragan penalty.weight=1", "Kodali et al. 2017"),
    ("r1", "penalty=r1 penalty.gamma=0.2", "Mescheder et al. 2018"),
    ("rpgan", "adversarial=rpgan", "Jolicoeur-Martineau 2019"),
    ("r3gan", "adversarial=rpgan penalty=r1r2 penalty.gamma=0.2", "Huang et al. 2024"),
    ("sngan", "adversarial=hinge d_weight_norm=spectral", "Miyato et al. 2018"),
    ("label-smoothing", "adversarial.smooth=0.1", "Salimans et al. 2016, section 3.4"),
    ("ttur", "g_optimizer.lr=*0.25", "Heusel et al. 2017: D learns four times as fast as G"),
    ("d-steps-2", "d_steps=2", "Goodfellow et al. 2014, algorithm 1, k = 2"),
    ("g-steps-2", "g_steps=2", "two updates of G for one of D, as the code of Lin et al. 2018 for images"),
    ("pack-2", "pack=2", "Lin et al. 2018; with the same number of points, so half as many packs"),
    ("pack-3", "pack=3 train.batch_size=//3", "the same; the batch is rounded down to a multiple of three"),
    ("pack-4", "pack=4", "the same"),
    ("unrolled-5", "unrolling=adam unrolling.lr=d_optimizer.lr",
     "Metz et al. 2017, with G's gradient through five steps of D"),
    ("unrolled-5-stopped", "unrolling=adam unrolling.lr=d_optimizer.lr unrolling.second_order=false",
     "the same without that gradient"),
    ("instance-noise", "instance_noise=normal instance_noise.std=0.2", "Sønderby et al. 2017"),
    ("feature-matching", "feature_matching=means", "Salimans et al. 2016, section 3.1"),
    ("historical-averaging", "lambda_history=0.001", "Salimans et al. 2016, section 3.3"),
    ("minibatch-discrimination", "discriminator.kernels=5 discriminator.kernel_dims=3",
     "Salimans et al. 2016, section 3.2"),
    ("minibatch-std", "discriminator.group=4", "Karras et al. 2018, section 3"),
    ("batchnorm", "generator.norm=batch", "Radford et al. 2016, in G; already in the networks of the ring"),
    ("no-batchnorm", "generator.norm=none", "already the case in the networks of the grid"),
    ("virtual-batchnorm", "generator.norm=virtual", "Salimans et al. 2016, section 3.4, in G"),
    ("deligan", "latent=mixture", "Gurumurthy et al. 2017, 50 components"),
    ("ema", "train.ema_half_life=10k", "Yazici et al. 2019"),
)
METHODS = {name: Method(name, tuple(settings.split()), source) for name, settings, source in _METHODS}


def select_methods(only: str | None) -> list[Method]:
    """The methods named in NAME,NAME with the baseline, or all.  RequestError for unknown names."""
    names = list(METHODS) if only is None else [BASELINE, *filter(None, map(str.strip, only.split(",")))]
    for name in names:
        if name not in METHODS:
            raise RequestError(f"--only {only}: no method is called {name!r}; {suggest(name, METHODS)}")
    return [METHODS[name] for name in dict.fromkeys(names)]
