"""The three tests and their protocols: data, networks, lengths, and what papers report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from i2i.benchmarks import points, stacked
from i2i.benchmarks.scoring import Score
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.registry import suggest


class Target(Protocol):
    """A distribution whose modes are known."""

    @property
    def info(self) -> DataInfo:
        """What networks have to know of its images."""
        ...

    @property
    def modes(self) -> int:
        """How many there are."""
        ...

    @property
    def pictures(self) -> str:
        """Which pictures it is made of; "" where it is not."""
        ...

    def batches(self, seed: int, batch: int) -> Iterator[Mapping[str, Tensor]]:
        """Real images without end."""
        ...

    def judge(self, samples: Tensor) -> tuple[Score, list[int]]:
        """The score of generated images, and how many of them belong to each mode."""
        ...


@dataclass(frozen=True)
class Published:
    """A row of a paper's table."""

    what: str
    modes: str
    high_quality: str
    kl: str
    source: str


@dataclass(frozen=True)
class Benchmark:
    """One test: what is asked of every remedy alike."""

    name: str
    title: str
    steps: int                      # Rounds of the algorithm: one update of G.
    batch: int                      # Real images in a step.
    samples: int                    # Drawn to be judged.
    words: tuple[str, ...]          # Settings that all remedies share.
    published: tuple[Published, ...] = field(repr=False)
    # Settings that gradient penalties ask for, where D has batch norm.
    without_batchnorm: tuple[str, ...] = ()


_ADAM = " ".join(f"{player}_optimizer.{key}" for player in "gd"
                 for key in ("lr={}", "beta1=0.5", "beta2=0.99"))
# Networks, rate and length are for a CPU in seconds; everything else is the code of Lin et al. 2018.
# docs/modes.md says what theirs are, and why
# there is no batch norm on the grid.
_POINTS = ("generator=mlp generator.output=linear generator.z_dim=2 generator.width=64 generator.layers=3 "
           "generator.norm={} discriminator=mlp "
           f"discriminator.width=64 discriminator.layers=3 discriminator.activation=leaky schedule=linear "
           f"{_ADAM.format(4e-3, 4e-3)}")
_PICTURES = f"generator.width=16 generator.norm=batch discriminator.width=8 {_ADAM.format(1e-3, 1e-3)}"

_PACGAN, _VEEGAN = "Lin et al. 2018", "Srivastava et al. 2017"
BENCHMARKS = {trial.name: trial for trial in (
    Benchmark("ring", "2D ring of 8", 2500, 128, 2500, tuple(_POINTS.format("batch").split()), (
        Published("GAN", "6.3 ± 0.5", "98.2 %", "0.45 ± 0.09", _PACGAN),
        Published("ALI", "6.6 ± 0.3", "97.6 %", "0.36 ± 0.04", _PACGAN),
        Published("PacGAN2", "7.9 ± 0.1", "95.6 %", "0.07 ± 0.03", _PACGAN),
        Published("PacGAN3", "7.8 ± 0.1", "97.7 %", "0.10 ± 0.02", _PACGAN),
        Published("PacGAN4", "7.8 ± 0.1", "95.9 %", "0.07 ± 0.02", _PACGAN),
        Published("GAN", "1", "99.3 %", "–", _VEEGAN),
        Published("ALI", "2.8", "0.13 %", "–", _VEEGAN),
        Published("Unrolled GAN", "7.6", "35.6 %", "–", _VEEGAN),
        Published("VEEGAN", "8", "52.9 %", "–", _VEEGAN))),
    Benchmark("grid", "2D grid of 25", 2500, 128, 2500, tuple(_POINTS.format("none").split()), (
        Published("GAN", "17.3 ± 0.8", "94.8 %", "0.70 ± 0.07", _PACGAN),
        Published("ALI", "24.1 ± 0.4", "95.7 %", "0.14 ± 0.03", _PACGAN),
        Published("PacGAN2", "23.8 ± 0.7", "91.3 %", "0.13 ± 0.04", _PACGAN),
        Published("PacGAN3", "24.6 ± 0.4", "94.2 %", "0.06 ± 0.02", _PACGAN),
        Published("PacGAN4", "24.8 ± 0.2", "93.6 %", "0.04 ± 0.01", _PACGAN),
        Published("GAN", "3.3", "0.5 %", "–", _VEEGAN),
        Published("ALI", "15.8", "1.6 %", "–", _VEEGAN),
        Published("Unrolled GAN", "23.6", "16 %", "–", _VEEGAN),
        Published("VEEGAN", "24.6", "40 %", "–", _VEEGAN))),
    Benchmark("stacked-mnist", "Stacked MNIST, 1,000 modes", 1000, 64, 26_000, tuple(_PICTURES.split()), (
        Published("DCGAN", "99.0", "–", "3.40", _VEEGAN), Published("ALI", "16.0", "–", "5.40", _VEEGAN),
        Published("Unrolled GAN", "48.7", "–", "4.32", _VEEGAN),
        Published("VEEGAN", "150.0", "–", "2.95", _VEEGAN),
        Published("DCGAN", "78.9 ± 6.46", "–", "4.50 ± 0.127", _PACGAN),
        Published("PacDCGAN2", "1000.0 ± 0.00", "–", "0.06 ± 0.003", _PACGAN),
        Published("PacDCGAN4", "1000.0 ± 0.00", "–", "0.07 ± 0.005", _PACGAN),
        Published("DCGAN, D 1/4 of G", "30.6 ± 20.73", "–", "5.99 ± 0.42", "Metz et al. 2017"),
        Published("Unrolled 5, D 1/4 of G", "236.4 ± 63.30", "–", "4.67 ± 0.43", "Metz et al. 2017"),
        Published("Unrolled 10, D 1/4 of G", "327.2 ± 74.67", "–", "4.66 ± 0.46", "Metz et al. 2017"),
        Published("PacDCGAN4, D 1/4 of G", "667.4 ± 29.00", "–", "1.81 ± 0.15", _PACGAN)),
          ("discriminator.norm=none",)),
)}


def select_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """The tests of these names; by default the two in the plane.  RequestError for other names."""
    for name in names:
        if name not in BENCHMARKS:
            raise RequestError(f"no test is called {name!r}; {suggest(name, BENCHMARKS)}")
    return [BENCHMARKS[name] for name in dict.fromkeys(names or ("ring", "grid"))]


def target(trial: Benchmark, mnist: Path | None, kept: Path) -> Target:
    """What the test asks a generator to learn; its classifier, if it has one, is kept in a folder."""
    if trial.name == "ring":
        return points.ring()
    if trial.name == "grid":
        return points.grid()
    digits = stacked.read_digits(mnist)
    network, accuracy = stacked.classifier(digits, kept / "classifier.safetensors")
    return stacked.Stacked(digits, network, accuracy)
