"""Learner and average: one player at a time, skipped steps, closed forms."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from i2i.errors import JobError, RequestError
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.seeding import Progress
from i2i.training.config import TrainConfig
from i2i.training.distributed import BUCKET_BYTES, GradientBuckets, Runtime
from i2i.training.ema import EMA
from i2i.training.player_optimizers import PlayerOptimizers


def learner(max_skips: int = 3) -> tuple[PlayerOptimizers, nn.ModuleDict]:
    recipe = Pix2Pix(generator=Spec("unet", {"width": 2}), discriminator=Spec("patch", {"width": 2, "layers": 1}))
    modules = recipe.modules(DataInfo((16, 16)))
    made = PlayerOptimizers(recipe, modules, Runtime(device="cpu"), max_skips=max_skips)
    made.begin(Progress(0, 1, 10))
    return made, modules


def loss_of(module: nn.Module, factor: float = 1.0) -> torch.Tensor:
    return factor * sum(p.square().sum() for p in module.parameters())


def test_steps_that_are_not_finite_are_skipped_and_counted() -> None:
    made, modules = learner()
    before = copy.deepcopy(modules["G"].state_dict())
    made("G", loss_of(modules["G"], float("nan")))
    made("G", loss_of(modules["G"], float("inf")))
    assert all(torch.equal(value, before[key]) for key, value in modules["G"].state_dict().items())
    assert all(not value.any() for moments in made.optimizers["G"].state.values() for value in moments.values())
    made("G", loss_of(modules["G"]), loss=torch.tensor(2.0))
    means = made.means()
    assert means["skipped_G"] == 2
    assert means["loss"] == 2


def test_after_too_many_in_a_row_the_run_stops_and_names_the_player() -> None:
    made, modules = learner(max_skips=3)
    made("D", loss_of(modules["D"], float("nan")))
    made("D", loss_of(modules["D"]))        # A good step ends the row.
    made("D", loss_of(modules["D"], float("nan")))
    made("D", loss_of(modules["D"], float("nan")))
    assert made.means()["skipped_D"] == 3
    made("D", loss_of(modules["D"], float("nan")))
    with pytest.raises(JobError, match="player D were not finite for 3 steps"):
        made.means()


@pytest.mark.parametrize(("words", "clip"), [("adam", 0.0), ("adam", 0.05), ("rmsprop", 0.0), ("rmsprop", 0.05), ("adamw", 0.0), ("adam fused=false", 0.0)])
@pytest.mark.parametrize("bad", [(0,), (2,), (1, 2)])
def test_a_skipped_step_leaves_nothing_behind(words: str, clip: float, bad: tuple[int, ...]) -> None:
    """Parameters and moments are those of an optimizer that never saw the bad gradients."""
    name, *options = words.split()
    spec = Spec(name, {"fused": False} if options else {})
    recipe = Pix2Pix(generator=Spec("unet", {"width": 2}), discriminator=Spec("patch", {"width": 2, "layers": 1}), g_optimizer=spec)
    torch.manual_seed(0)
    modules = recipe.modules(DataInfo((16, 16)))
    twins = copy.deepcopy(modules)
    ends = []
    for each, skipped in ((modules, bad), (twins, ())):
        made = PlayerOptimizers(recipe, each, Runtime(device="cpu"), max_skips=3)
        made.players["G"] = dataclasses.replace(made.players["G"], clip=clip)
        for step in range(4):
            if step in skipped:
                made("G", loss_of(each["G"], float("nan")))
            elif each is modules or step not in bad:
                made("G", loss_of(each["G"], 1.0 + step))
        ends.append([*each["G"].parameters(), *(value for moments in made.optimizers["G"].state.values() for value in moments.values())])
    assert len(ends[0]) == len(ends[1])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_logs_are_means_since_the_last_time() -> None:
    made, modules = learner()
    for value in (1.0, 2.0, 6.0):
        made("G", loss_of(modules["G"]), x=torch.tensor(value))
    assert made.means()["x"] == 3
    made("G", loss_of(modules["G"]), x=torch.tensor(5.0))
    assert made.means()["x"] == 5
    assert made.means() == {}


def test_the_step_is_adams() -> None:
    made, modules = learner()
    twin = copy.deepcopy(modules["G"])
    adam = torch.optim.Adam(twin.parameters(), 2e-4, (0.5, 0.999), foreach=False)
    for _ in range(3):
        made("G", loss_of(modules["G"]))
        adam.zero_grad()
        loss_of(twin).backward()
        adam.step()
    for ours, theirs in zip(modules["G"].parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_average_forgets_half_in_a_half_life() -> None:
    modules = nn.ModuleDict({"G": nn.Linear(1, 1, bias=False)})
    with torch.no_grad():
        modules["G"].weight.fill_(1.0)
    average = EMA(modules, ("G",), TrainConfig(ema_half_life=100, ema_ramp_up=1e9))
    with torch.no_grad():
        modules["G"].weight.fill_(0.0)
    for step in range(25):
        average.update(Progress(step, 4, 1000))
    assert average.modules["G"].weight.item() == pytest.approx(0.5)


def test_the_half_life_is_ramped_up_and_early_weights_forgotten() -> None:
    modules = nn.ModuleDict({"G": nn.Linear(1, 1, bias=False)})
    average = EMA(modules, ("G",), TrainConfig(ema_half_life=10_000, ema_ramp_up=0.05))
    assert average.decay(Progress(0, 8, 10**6)) == pytest.approx(0.5 ** (1 / 0.05))
    assert average.decay(Progress(1000, 8, 10**6)) == pytest.approx(0.5 ** (8 / 400))
    assert average.decay(Progress(10**5, 8, 10**6)) == pytest.approx(0.5 ** (8 / 10_000))


def test_buffers_are_copied_and_no_average_costs_nothing() -> None:
    modules = nn.ModuleDict({"G": nn.BatchNorm2d(2)})
    average = EMA(modules, ("G",), TrainConfig())
    modules["G"](torch.randn(2, 2, 4, 4))
    average.update(Progress(0, 2, 10))
    assert torch.equal(average.modules["G"].running_mean, modules["G"].running_mean)
    assert average.modules["G"].num_batches_tracked == 1
    assert EMA(modules, ("G",), TrainConfig(ema_half_life=0)).modules["G"] is modules["G"]


def test_gradients_are_sent_while_others_are_computed_the_last_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two equal processes, whose mean is what one of them has."""
    full = BUCKET_BYTES // 4
    parameters = [nn.Parameter(torch.ones(n)) for n in (10, full // 4, 10, 10, full, 1)]
    unused = nn.Parameter(torch.ones(5))
    runtime, events = Runtime(device="cpu"), list[object]()
    runtime.world_size = 2

    def all_reduce(flat: torch.Tensor, *, async_op: bool) -> SimpleNamespace:
        events.append(flat.numel())
        return SimpleNamespace(wait=lambda: (events.append("received"), flat.mul_(2)))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    gradients = GradientBuckets(runtime, [unused, *parameters])
    parameters[0].register_post_accumulate_grad_hook(lambda _: events.append("first"))
    for _ in range(2):
        x = torch.ones(())
        for i, p in enumerate(parameters):      # The backward pass goes from the last to the first.
            x = x * (i + 1) * p.mean()
        gradients.backward(x)
        assert events == [1, full, "first", full // 4 + 30, *["received"] * 3]
        assert [float(p.grad.sum()) for p in parameters] == pytest.approx([720.0] * 6)
        assert unused.grad is None
        events.clear()
        for p in parameters:
            p.grad = None


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(RequestError, match="--device tpu"):
        Runtime(device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(RequestError, match="this machine or this build of torch has none"):
            Runtime(device="cuda")


@pytest.mark.parametrize(("key", "value"), [("batch_size", 0), ("log_every", 0), ("checkpoint_every", -1), ("num_workers", -1), ("keep_checkpoints", 0), ("ema_ramp_up", 0.0)])
def test_settings_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(RequestError, match=rf"train\.{key}"):
        TrainConfig(**{key: value})
