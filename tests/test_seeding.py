import pytest
import torch

from i2i.errors import RequestError
from i2i.seeding import Progress, noise_for, seed_step, stable_seed
from i2i.training.schedules import constant, linear


def test_seeds_are_the_same_on_every_machine() -> None:
    assert stable_seed(0, 0, 0) == 7896617691693857887
    assert stable_seed(7, 1, 123) == 7128575372452821389
    assert len({stable_seed(s, r, t) for s in range(3) for r in range(3) for t in range(50)}) == 450


def test_a_step_draws_the_same_whatever_came_before() -> None:
    seed_step(3, 0, 17)
    first = torch.rand(4)
    torch.rand(100)
    seed_step(3, 0, 17)
    assert torch.equal(first, torch.rand(4))
    torch.manual_seed(stable_seed(3, 0, 17))
    assert torch.equal(first, torch.rand(4))
    seed_step(3, 1, 17)
    assert not torch.equal(first, torch.rand(4))


def test_rates() -> None:
    at = [Progress(step, 10, 1000) for step in range(100)]
    assert all(constant()(progress) == 1 for progress in at)
    rates = [linear()(progress) for progress in at]
    assert rates[:51] == [1.0] * 51
    assert rates[75] == pytest.approx(0.5)
    assert 0 < rates[99] == pytest.approx(0.02)
    assert [linear(start=0.0)(progress) for progress in at][50] == pytest.approx(0.5)
    with pytest.raises(RequestError, match="schedule.start"):
        linear(start=1.0)


def test_an_interval_is_passed_once_for_every_multiple_of_it() -> None:
    for batch in (1, 3, 8, 64):
        passed = sum(Progress(step, batch, 10**6).passes(64) for step in range(64))
        assert passed == min(64, batch * 64 // 64)


def test_the_noise_of_an_image_depends_on_seed_and_index_alone() -> None:
    torch.manual_seed(0)
    first = noise_for(7, 3, 10)
    torch.manual_seed(1)
    assert torch.equal(noise_for(7, 3, 10), first)
    assert torch.equal(torch.randn(10, generator=torch.Generator().manual_seed(stable_seed(7, 3))), first)
    assert not torch.equal(noise_for(7, 4, 10), first)
