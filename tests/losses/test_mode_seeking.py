"""The mode seeking penalty: its formula, and that it parts the images of a generator that ignores z."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from i2i.errors import RequestError
from i2i.losses.mode_seeking import EPSILON, ModeSeeking
from i2i.registry import Spec, build


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.classes = nn.Linear(5, 12, dtype=torch.float64), nn.Embedding(3, 12, dtype=torch.float64)
        with torch.no_grad():
            self.layer.weight.mul_(1e-3)

    def forward(self, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        out = self.layer(z) if c is None else self.layer(z) + self.classes(c)
        return out.tanh().unflatten(1, (3, 2, 2))


def test_it_is_the_formula_of_the_paper() -> None:
    """Pairs of z with one label each: the last with the first."""
    torch.manual_seed(0)
    G, z, c = Generator(), torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    distances = [(sum((G(z[i:i + 1], c[i:i + 1]) - G(z[[i - 1]], c[i:i + 1])).abs().flatten()), sum((z[i] - z[i - 1]).abs())) for i in range(4)]
    images, noise = (sum(d[k] for d in distances) for k in (0, 1))
    torch.testing.assert_close(ModeSeeking(weight=2.0)(G, z, c).double(), 2 / (images / 12 / (noise / 5) + EPSILON), rtol=1e-5, atol=0)


def test_it_makes_a_generator_that_ignores_z_use_it() -> None:
    torch.manual_seed(0)
    G, P, z = Generator(), ModeSeeking(), torch.randn(64, 5, dtype=torch.float64)
    optimizer, before = torch.optim.Adam(G.parameters(), 1e-2), G(z, None).std(0).mean().item()
    for _ in range(50):
        optimizer.zero_grad()
        P(G, z, None).backward()
        optimizer.step()
    assert G(z, None).std(0).mean().item() > 20 * before


def test_images_that_do_not_differ_and_a_single_z_have_a_finite_penalty() -> None:
    G = Generator()
    assert ModeSeeking()(G, torch.ones(1, 5, dtype=torch.float64), None).isfinite()
    with torch.no_grad():
        G.layer.weight.zero_()
    assert ModeSeeking()(G, torch.randn(4, 5, dtype=torch.float64), None).item() == pytest.approx(1 / EPSILON)


@pytest.mark.parametrize("options", [{"weight": -1}, {"every": 0}, {"shrink": 0}])
def test_invalid_options_are_refused(options: dict[str, float]) -> None:
    key, = options
    with pytest.raises(RequestError, match=f"g_penalty.{key}"):
        build("generator_penalty", Spec("mode-seeking", options))
