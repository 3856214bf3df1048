"""Path length regularization: its closed form on a linear synthesis, and its effect on a generator."""

import math

import pytest
import torch
from torch import nn

from i2i.errors import RequestError
from i2i.losses.path_length import PathLengthPenalty, path_lengths
from i2i.registry import Spec, build, names

LAYERS, W, IMAGE = 2, 3, (2, 3, 4)
PIXELS = 3 * 4


def matrices(seed: int = 0) -> torch.Tensor:
    """One matrix for each layer: image = sum over layers of A_l w_l."""
    return torch.randn(LAYERS, math.prod(IMAGE), W, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear(a: torch.Tensor):
    return lambda ws: torch.einsum("liw,nlw->ni", a, ws).unflatten(1, IMAGE)


def styles(n: int = 7) -> torch.Tensor:
    return torch.randn(n, LAYERS, W, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def noise(n: int = 7) -> torch.Tensor:
    torch.manual_seed(2)
    y = torch.randn(n, *IMAGE, dtype=torch.float64).flatten(1) / PIXELS**0.5
    torch.manual_seed(2)        # The same for what follows.
    return y


def test_lengths_of_a_linear_synthesis() -> None:
    """J of layer l is A_l, so |J^T y| = sqrt(mean over layers of |A_l^T y|^2)."""
    a, y = matrices(), noise()
    expected = torch.einsum("liw,ni->nlw", a, y).square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(path_lengths(linear(a), styles()), expected)


def test_the_penalty_and_its_mean() -> None:
    a, y = matrices(), noise()
    lengths = torch.einsum("liw,ni->nlw", a, y).square().sum(2).mean(1).sqrt()
    P = build("generator_penalty", Spec("path-length", {"weight": 3.0, "decay": 0.25})).double()
    P.mean.fill_(2.0)
    value = P.of_styles(linear(a), styles())
    mean = 0.75 * 2 + 0.25 * lengths.mean()
    torch.testing.assert_close(P.mean, mean)
    torch.testing.assert_close(value, 3 * (lengths - mean).square().mean())
    assert dict(P.named_buffers()).keys() == set(P.synced_buffers)


def test_the_penalty_is_near_zero_for_an_orthogonal_synthesis_and_large_for_a_stretched_one() -> None:
    """|J^T y| is nearly constant if J is a multiple of an isometry."""
    even = torch.linalg.qr(torch.randn(3000, 64, generator=torch.Generator().manual_seed(0)))[0]
    costs = {}
    for name, scale in (("even", torch.ones(64)), ("stretched", torch.tensor([8.0] + [0.1] * 63))):
        P = PathLengthPenalty(decay=1.0)
        torch.manual_seed(0)
        costs[name] = P.of_styles(lambda ws, a=even * scale: (ws[:, 0] @ a.t()).unflatten(1, (3, 10, 100)), torch.randn(200, 1, 64)).item() / P.mean.item()**2
    assert costs["even"] < 0.05
    assert costs["stretched"] > 10 * costs["even"]


def test_its_gradients_match_finite_differences() -> None:
    """With respect to the weights of the synthesis and to the styles."""
    a, ws = matrices().requires_grad_(), styles(3).requires_grad_()

    def loss(a: torch.Tensor, ws: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return PathLengthPenalty(decay=0.5).double().of_styles(lambda w: linear(a)(w).tanh(), ws)

    # The mean is a constant to the gradient, so the differences must not see it move.
    def fixed(a: torch.Tensor, ws: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return 2 * (path_lengths(lambda w: linear(a)(w).tanh(), ws) - level).square().mean()

    torch.manual_seed(0)
    level = 0.5 * path_lengths(lambda w: linear(a)(w).tanh(), ws).mean().detach()
    assert torch.autograd.gradcheck(fixed, (a, ws))
    for ours, expected in zip(torch.autograd.grad(loss(a, ws), (a, ws)), torch.autograd.grad(fixed(a, ws), (a, ws)), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)      # The mean is kept in single precision.


def test_training_with_it_makes_path_lengths_more_equal() -> None:
    torch.manual_seed(0)
    synthesis = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 48))
    P, optimizer = PathLengthPenalty(), torch.optim.Adam(synthesis.parameters(), 3e-3)

    def image(ws: torch.Tensor) -> torch.Tensor:
        return synthesis(ws[:, 0]).unflatten(1, (3, 4, 4))

    def spread() -> float:
        ws = 3 * torch.randn(50, 1, 8)      # Their mean over y: what differs from style to style.
        lengths = path_lengths(image, ws.repeat(100, 1, 1)).unflatten(0, (100, 50)).square().mean(0).sqrt().detach()
        return (lengths.std() / lengths.mean()).item()

    before = spread()
    for _ in range(100):
        optimizer.zero_grad()
        P.of_styles(image, 3 * torch.randn(64, 1, 8)).backward()
        optimizer.step()
    assert spread() < 0.7 * before


def test_it_is_computed_in_float32_under_autocast() -> None:
    layer, seen = nn.Linear(4, 12), []

    def image(ws: torch.Tensor) -> torch.Tensor:
        out = layer(ws.mean(1))
        seen.append((ws.dtype, out.dtype))
        return out.unflatten(1, (3, 2, 2))

    with torch.autocast("cpu", torch.bfloat16):
        value = PathLengthPenalty().of_styles(image, torch.randn(2, 3, 4).bfloat16())
    assert seen == [(torch.float32, torch.float32)]
    assert value.dtype == torch.float32
    value.backward()
    assert layer.weight.grad.isfinite().all()


def test_none_is_never_due_and_the_other_runs_on_meta_tensors() -> None:
    assert set(names("generator_penalty")) == {"none", "path-length", "mode-seeking"}
    none = build("generator_penalty", Spec("none"))
    assert (none.every, none(nn.Identity(), torch.ones(2, 3), None).item()) == (0, 0.0)
    with torch.device("meta"):
        P, layer = PathLengthPenalty(), nn.Linear(4, 12)
        P.of_styles(lambda ws: layer(ws.mean(1)).unflatten(1, (3, 2, 2)), torch.empty(2, 3, 4)).backward()


@pytest.mark.parametrize("options", [{"weight": -1}, {"every": 0}, {"decay": 0}, {"decay": 1.5}, {"shrink": 0}])
def test_invalid_options_are_refused(options: dict[str, float]) -> None:
    key, = options
    with pytest.raises(RequestError, match=f"g_penalty.{key}"):
        build("generator_penalty", Spec("path-length", options))
