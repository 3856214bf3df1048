"""What is compared: each remedy is a row of words of the command line, as they may follow `i2i train gan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from i2i.config import parse, parse_assignments
from i2i.errors import RequestError
from i2i.registry import suggest

PLAIN = "gan"       # What all others are held against.


@dataclass(frozen=True)
class TableRow:
    """A name, settings beside those of the test, and where they come from; `rounds` steps of the engine are
    one round of its algorithm."""

    name: str
    words: tuple[str, ...]
    source: str
    rounds: int = 1

    @property
    def differentiates(self) -> bool:
        """Whether it takes gradients with respect to images, which no D with batch norm has."""
        return any(word.startswith("penalty=") and word != "penalty=clip" for word in self.words)

    def on(self, common: Sequence[str], batch: int) -> tuple[str, ...]:
        """All words of a run.  A piece of another name takes none of the old one's options.

        `*0.25` is a factor on what `common` has, `//3` the most of it that three divides (`batch`, if it has
        no train.batch_size), the name of a setting what that is.
        """
        given = {"train.batch_size": str(batch)} | dict(parse_assignments(common))

        def settled(key: str, value: str) -> str:
            if value.startswith("*"):
                return f"{parse(key, given[key], float) * float(value[1:]):g}"
            if value.startswith("//"):
                whole = parse(key, given[key], int)
                return str(whole - whole % int(value[2:]))
            return given.get(value, value)

        ours = {key: settled(key, value) for key, value in parse_assignments(self.words)}
        kept = {key: value for key, value in parse_assignments(common) if key.split(".")[0] not in ours}
        return tuple(f"{key}={value}" for key, value in (kept | ours).items())


_CRITIC = 5         # Steps of D for one of G in WGAN's and WGAN-GP's papers.
_ROWS = (
    (PLAIN, "", "Goodfellow et al. 2014, non-saturating"),
    ("minimax", "adversarial=minimax", "Goodfellow et al. 2014, equation 1"),
    ("lsgan", "adversarial=lsgan", "Mao et al. 2017"),
    ("wgan",
     f"adversarial=wasserstein penalty=clip penalty.limit=0.1 d_steps={_CRITIC} g_optimizer=rmsprop "
     "d_optimizer=rmsprop "
             "g_optimizer.lr=*0.25 d_optimizer.lr=*0.25", "Arjovsky et al. 2017"),
    ("wgan-gp", f"adversarial=wasserstein penalty=wgan-gp penalty.weight=1 d_steps={_CRITIC}",
     "Gulrajani et al. 2017"),
    ("dragan", "penalty=dragan penalty.weight=1", "Kodali et al. 2017"),
    ("r1", "penalty=r1 penalty.gamma=0.2", "Mescheder et al. 2018"),
    ("rpgan", "adversarial=rpgan", "Jolicoeur-Martineau 2019"),
    ("r3gan", "adversarial=rpgan penalty=r1r2 penalty.gamma=0.2", "Huang et al. 2024"),
    ("sngan", "adversarial=hinge d_weight_norm=spectral", "Miyato et al. 2018"),
    ("label-smoothing", "adversarial.smooth=0.1", "Salimans et al. 2016, section 3.4"),
    ("ttur", "g_optimizer.lr=*0.25", "Heusel et al. 2017: D four times as fast as G"),
    ("d-steps-2", "d_steps=2", "Goodfellow et al. 2014, algorithm 1, k = 2"),
    ("g-steps-2", "g_steps=2", "two updates of G for one of D, as the code of Lin et al. 2018 for pictures"),
    ("pack-2", "pack=2", "Lin et al. 2018; the batch is of as many points, so of half as many packs"),
    ("pack-3", "pack=3 train.batch_size=//3", "the same; the batch is the most that three divides"),
    ("pack-4", "pack=4", "the same"),
    ("unrolled-5", "unrolling=adam unrolling.lr=d_optimizer.lr",
     "Metz et al. 2017, G's gradient through five steps of D"),
    ("unrolled-5-stopped", "unrolling=adam unrolling.lr=d_optimizer.lr unrolling.second_order=false",
     "the same without it"),
    ("instance-noise", "instance_noise=normal instance_noise.std=0.2", "Sønderby et al. 2017"),
    ("feature-matching", "feature_matching=means", "Salimans et al. 2016, section 3.1"),
    ("historical-averaging", "lambda_history=0.001", "Salimans et al. 2016, section 3.3"),
    ("minibatch-discrimination", "discriminator.kernels=5 discriminator.kernel_dims=3",
     "Salimans et al. 2016, section 3.2"),
    ("minibatch-std", "discriminator.group=4", "Karras et al. 2018, section 3"),
    ("batchnorm", "generator.norm=batch", "in G, as Radford et al. 2016; the ring's networks have it"),
    ("no-batchnorm", "generator.norm=none", "the grid's networks have none"),
    ("virtual-batchnorm", "generator.norm=virtual", "in G: Salimans et al. 2016, section 3.4"),
    ("deligan", "latent=mixture", "Gurumurthy et al. 2017, 50 components"),
    ("ema", "train.ema_half_life=10k", "Yazici et al. 2019"),
)


def _rounds(words: Sequence[str]) -> int:
    return next((int(word.split("=")[1]) for word in words if word.startswith("d_steps=")), 1)


ROWS = {name: TableRow(name, tuple(words.split()), source, _rounds(words.split())) for name, words,
        source in _ROWS}


def select_rows(only: str | None) -> list[TableRow]:
    """Those named in NAME,NAME, or all; the plain one always, as costs are relative to it.  RequestError for
    other names."""
    names = list(ROWS) if only is None else [PLAIN,
                                             *(part.strip() for part in only.split(",") if part.strip())]
    for name in names:
        if name not in ROWS:
            raise RequestError(f"--only {only}: no remedy is called {name!r}; {suggest(name, ROWS)}")
    return [ROWS[name] for name in dict.fromkeys(names)]
