"""The benchmarks: target distributions, networks and lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2i.benchmarks.mixtures import Mixture, grid, ring
from i2i.benchmarks.stacked_mnist import StackedMNIST, load_classifier, read_digits
from i2i.errors import RequestError
from i2i.registry import suggest

Target = Mixture | StackedMNIST     # A distribution with known modes.


@dataclass(frozen=True)
class Benchmark:
    """A target and the protocol that all methods share."""

    name: str
    title: str
    steps: int                      # Updates of G.
    batch_size: int
    samples: int                    # Samples drawn for the score.
    settings: tuple[str, ...]
    penalty_settings: tuple[str, ...] = ()      # Further settings for methods with a gradient penalty.


_ADAM = " ".join(f"{player}_optimizer.{key}" for player in "gd"
                 for key in ("lr={0}", "beta1=0.5", "beta2=0.99"))
# Networks, learning rate and length are chosen to take seconds on a CPU; everything else follows the code of
# Lin et al. 2018.  docs/modes.md lists the differences, and why the grid has no batch norm.
_MLP = ("generator=mlp generator.output=linear generator.z_dim=2 generator.width=64 generator.layers=3 "
        "generator.norm={} discriminator=mlp discriminator.width=64 discriminator.layers=3 "
        f"discriminator.activation=leaky schedule=linear {_ADAM.format(4e-3)}")
_DCGAN = f"generator.width=16 generator.norm=batch discriminator.width=8 {_ADAM.format(1e-3)}"

RING = Benchmark("ring", "2D ring of 8", 2500, 128, 2500, tuple(_MLP.format("batch").split()))
GRID = Benchmark("grid", "2D grid of 25", 2500, 128, 2500, tuple(_MLP.format("none").split()))
STACKED_MNIST = Benchmark("stacked-mnist", "Stacked MNIST, 1,000 modes", 1000, 64, 26_000,
                          tuple(_DCGAN.split()), penalty_settings=("discriminator.norm=none",))
BENCHMARKS = {benchmark.name: benchmark for benchmark in (RING, GRID, STACKED_MNIST)}


def select_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names; by default ring and grid.  RequestError for unknown names."""
    for name in names:
        if name not in BENCHMARKS:
            raise RequestError(f"no benchmark is called {name!r}; {suggest(name, BENCHMARKS)}")
    return [BENCHMARKS[name] for name in dict.fromkeys(names or ("ring", "grid"))]


def build_target(benchmark: Benchmark, mnist: Path | None, folder: Path) -> Target:
    """The target of a benchmark; the classifier of Stacked MNIST is stored in `folder`."""
    if benchmark is STACKED_MNIST:
        digits = read_digits(mnist)
        return StackedMNIST(digits, *load_classifier(digits, folder / "classifier.safetensors"))
    return ring() if benchmark is RING else grid()
