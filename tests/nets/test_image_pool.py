"""The image pool: what it returns and stores, as a function of its buffers and torch's seed alone."""

import pytest
import torch

from i2i.nets.image_pool import ImagePool


def numbered(first: int, n: int, channels: int = 1, size: tuple[int, int] = (2, 2)) -> torch.Tensor:
    """Images whose pixels are their index."""
    return torch.arange(first, first + n).float()[:, None, None, None].expand(n, channels, *size).clone()


def numbers(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].int().tolist()


class ListPool:
    """The usual implementation with a Python list, given the same random numbers."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.images = capacity, list[torch.Tensor]()

    def __call__(self, fresh: torch.Tensor) -> torch.Tensor:
        coins, places = torch.rand(len(fresh)), torch.randint(self.capacity, (len(fresh),))
        out = []
        for image, coin, place in zip(fresh.detach(), coins.tolist(), places.tolist(), strict=True):
            if len(self.images) < self.capacity:
                self.images.append(image.clone())
                out.append(image)
            elif coin < 0.5:
                out.append(self.images[place].clone())
                self.images[place] = image.clone()
            else:
                out.append(image)
        return torch.stack(out)


@pytest.mark.parametrize(("channels", "size"), [(1, (2, 2)), (3, (4, 6)), (7, (5, 3))])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_it_equals_the_usual_implementation_with_a_list(channels: int, size: tuple[int, int], batch: int) -> None:
    ours, naive = ImagePool(5, channels, size), ListPool(5)
    for step in range(12):
        fresh = torch.randn(batch, channels, *size)
        torch.manual_seed(step)
        one = ours(fresh)
        torch.manual_seed(step)
        assert torch.equal(one, naive(fresh))
    assert torch.equal(ours.images[:int(ours.count)], torch.stack(naive.images))


def test_until_it_is_full_every_image_is_stored_and_returned() -> None:
    pool = ImagePool(6, 1, (2, 2))
    for first in (0, 3):
        assert numbers(pool(numbered(first, 3))) == [first, first + 1, first + 2]
    assert numbers(pool.images) == list(range(6))


def test_half_of_the_returned_images_are_earlier_ones() -> None:
    torch.manual_seed(0)
    pool = ImagePool(50, 1, (1, 1))
    pool(numbered(0, 50, size=(1, 1)))
    fresh = [numbers(pool(numbered(50 + i, 1, size=(1, 1))))[0] == 50 + i for i in range(2000)]
    assert sum(fresh) == pytest.approx(1000, abs=90)        # Four standard deviations.


def test_no_image_is_lost_or_duplicated() -> None:
    """The images put in are those returned and those still stored, each once."""
    torch.manual_seed(1)
    pool = ImagePool(10, 1, (1, 1))
    out = [number for i in range(30) for number in numbers(pool(numbered(4 * i, 4, size=(1, 1))))]
    handed_while_filling = out[:10]
    assert sorted(out[10:] + numbers(pool.images)) == list(range(120))
    assert handed_while_filling == list(range(10))


def test_a_restored_pool_continues_as_if_never_interrupted() -> None:
    one, other = ImagePool(4, 1, (2, 2)), ImagePool(4, 1, (2, 2))
    for step in range(20):
        if step in (2, 3, 11):      # While it fills, when it is full, and later.
            other = ImagePool(4, 1, (2, 2))
            other.load_state_dict({key: value.clone() for key, value in one.state_dict().items()})
        fresh = torch.randn(3, 1, 2, 2)
        torch.manual_seed(step)
        expected = one(fresh)
        if step >= 2:
            torch.manual_seed(step)
            assert torch.equal(other(fresh), expected)
    assert not list(one.parameters())


def test_results_are_detached_and_the_input_is_unchanged() -> None:
    pool, fresh = ImagePool(2, 1, (2, 2)), numbered(1, 4).requires_grad_()
    before = fresh.detach().clone()
    assert not pool(fresh).requires_grad
    assert torch.equal(fresh, before)


def test_a_pool_of_capacity_0_returns_its_input() -> None:
    pool = ImagePool(0, 1, (2, 2))
    assert numbers(pool(numbered(3, 4))) == [3, 4, 5, 6]


def test_images_in_half_precision_are_returned_unchanged() -> None:
    pool = ImagePool(2, 1, (2, 2))
    for first in range(5):
        out = pool((numbered(first, 2) / 3).bfloat16())
        assert out.dtype == torch.bfloat16
    assert set(out.unique().tolist()) <= set((torch.arange(6) / 3).bfloat16().tolist())


def test_it_runs_on_meta_tensors() -> None:
    with torch.device("meta"):
        assert ImagePool(3, 2, (4, 5))(torch.empty(6, 2, 4, 5)).shape == (6, 2, 4, 5)
