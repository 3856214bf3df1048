"""Gradient steps: what `update("D", loss)` of a recipe does."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from i2i.errors import JobError
from i2i.recipes.base import Recipe
from i2i.registry import build
from i2i.seeding import Progress
from i2i.training import optimizers, schedules  # noqa: F401 - registers them.
from i2i.training.distributed import GradientBuckets, Runtime


class PlayerOptimizers:
    """The optimizers of all players, and running sums of the values they log.

    An update whose gradients are not finite is skipped on the device, in all processes alike.  The host reads
    nothing within a step: `means` and `state`, called between steps, raise JobError after too many skips in a
    row.  The parameters whose names are `frozen` get no gradients and no updates.
    """

    def __init__(self, recipe: Recipe, modules: nn.ModuleDict, runtime: Runtime, *, max_skips: int,
                 frozen: Collection[str] = ()) -> None:
        self.runtime, self.max_skips = runtime, max_skips
        self.players = dict(recipe.players)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, player in self.players.items():
            parameters = [p for module in player.modules for key, p in modules[module].named_parameters()
                          if f"{module}.{key}" not in frozen]
            self.optimizers[name] = build("optimizer", player.optimizer, parameters)
            _make_moments(self.optimizers[name])
        self._gradients = {name: GradientBuckets(runtime, _parameters(optimizer))
                           for name, optimizer in self.optimizers.items()}
        self._base_lr = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self._schedules = {name: build("schedule", player.schedule) for name, player in self.players.items()}
        # Logged keys -> (2, keys): sums and counts of their finite values since the last call of `means`.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        # Skipped updates of each player: in a row, kept once it is `max_skips`; since the last `means`.
        self._skips = {name: torch.zeros(2, dtype=torch.int64, device=runtime.device)
                       for name in self.optimizers}
        # Whether no update of this step was skipped.
        self.finite = torch.ones((), dtype=torch.bool, device=runtime.device)

    def begin(self, progress: Progress) -> None:
        """Set the learning rates of this step."""
        self.finite = torch.ones_like(self.finite)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._base_lr[name] * self._schedules[name](progress)

    def __call__(self, player: str, loss: Tensor, /, **logs: Tensor) -> None:
        """One optimizer step of a player, with gradients averaged over processes, if they are finite."""
        optimizer = self.optimizers[player]
        parameters = _parameters(optimizer)
        # Nothing leaks into other players; nothing has to be frozen.
        self._gradients[player].backward(loss)
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        finite = torch.isfinite(norm)               # Of averaged gradients, so the same in all processes.
        _step(optimizer, finite, self.players[player].clip)
        optimizer.zero_grad(set_to_none=True)       # Also frees the memory for the next player.
        self.finite = self.finite & finite
        in_a_row, since_log = self._skips[player].unbind()
        in_a_row.copy_(torch.where(finite & (in_a_row < self.max_skips), 0, in_a_row + ~finite))
        since_log.add_(~finite)
        self._accumulate({**logs, f"grad_norm_{player}": norm}, finite)

    def _accumulate(self, values: Mapping[str, Tensor], finite: Tensor) -> None:
        """Add to the running sums what is finite: one infinite loss would hide all others."""
        dtype = torch.float64 if self.runtime.device.type == "cpu" else torch.float32
        stacked = torch.stack([value.detach().to(dtype) for value in values.values()])
        new = torch.stack([stacked, torch.ones_like(stacked)]).where(finite & torch.isfinite(stacked), 0)
        keys = tuple(values)
        self._sums[keys] = self._sums[keys] + new if keys in self._sums else new

    def means(self) -> dict[str, float]:
        """Means of the finite values since the last call, over processes, and counts of skipped updates."""
        self.check_skips()
        totals: dict[str, tuple[float, float]] = {}
        for keys, sums in self._sums.items():
            for key, total, count in zip(keys, *self.runtime.all_reduce_mean(sums).tolist(), strict=True):
                before = totals.get(key, (0.0, 0.0))
                totals[key] = before[0] + total, before[1] + count
        means = {key: total / count for key, (total, count) in totals.items() if count}
        skipped = {f"skipped_{player}": float(skips[1]) for player, skips in self._skips.items() if skips[1]}
        self._sums = {}
        for skips in self._skips.values():
            skips[1] = 0
        return means | skipped

    def check_skips(self) -> None:
        """Raise JobError if too many updates in a row were skipped.  Reads from the device."""
        for player, skips in self._skips.items():
            if skips[0] >= self.max_skips:
                raise JobError(f"the gradients of player {player} were not finite for {self.max_skips} steps "
                               "in a row; lower its learning rate, or check the data for values that are NaN")

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON data from which `restore` goes on.  Call it in all processes."""
        self.check_skips()
        sums = {str(i): value for i, value in enumerate(self._sums.values())}
        tensors = {f"log.{i}": value for i, value in sums.items()}
        tensors |= {f"log{rank}.{i}": value for rank, others in self.runtime.gather_tensors(sums).items()
                    for i, value in others.items()}
        for player, optimizer in self.optimizers.items():
            tensors |= {f"optimizer.{player}.{name}": value for name, value in _moments(optimizer).items()}
        return tensors, {"logged": list(self._sums),
                         "skipped": {player: skips.tolist() for player, skips in self._skips.items()}}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Go on from a `state`.  ValueError, KeyError or TypeError if it is not one of these players."""
        for player, skips in self._skips.items():
            skips.copy_(torch.tensor([int(count) for count in data["skipped"][player]]))
        rank = f"log{self.runtime.rank}"        # Processes that were not there take the first one's.
        self._sums = {}
        for i, keys in enumerate(data["logged"]):
            sums = tensors.get(f"{rank}.{i}", tensors[f"log.{i}"])
            if sums.shape != (2, len(keys)):
                raise ValueError(f"log.{i} does not fit its keys")
            self._sums[tuple(keys)] = sums.to(self.runtime.device)
        for player, optimizer in self.optimizers.items():
            for name, moment in _moments(optimizer).items():
                value = tensors[f"optimizer.{player}.{name}"]
                if value.shape != moment.shape:
                    raise ValueError(f"optimizer.{player}.{name} does not fit its parameter")
                moment.copy_(value)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer keeps for each parameter, by NUMBER.NAME."""
    return {f"{i}.{key}": moment for i, p in enumerate(_parameters(optimizer))
            for key, moment in optimizer.state[p].items()}


def _make_moments(optimizer: torch.optim.Optimizer) -> None:
    """Create the moments, all zero, by a step that is skipped; so they can be restored in place."""
    parameters = _parameters(optimizer)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    _step(optimizer, torch.zeros((), dtype=torch.bool, device=parameters[0].device), clip=0.0)
    for moment in _moments(optimizer).values():
        moment.zero_()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _step(optimizer: torch.optim.Optimizer, finite: Tensor, clip: float) -> None:
    """Make a step and clamp the parameters to [-clip, clip] (0: no limit), unless `finite` is false."""
    if getattr(optimizer, "_step_supports_amp_scaling", False) and not clip:
        optimizer.found_inf = (~finite).float()     # type: ignore[attr-defined]  # Fused kernels read it.
        optimizer.step()
        del optimizer.found_inf     # type: ignore[attr-defined]  # Else it would also rule the steps below.
        return
    parameters: list[Tensor] = [*_parameters(optimizer)]
    old_parameters = [p.clone() for p in parameters]
    old_moments = {name: moment.clone() for name, moment in _moments(optimizer).items()}
    optimizer.step()
    if clip:
        torch._foreach_clamp_min_(parameters, -clip)
        torch._foreach_clamp_max_(parameters, clip)
    for p, old in zip(parameters, old_parameters, strict=True):
        p.copy_(torch.where(finite, p, old))
    for name, moment in _moments(optimizer).items():
        # Counters on the CPU, of an unfused optimizer on a GPU, count skipped steps, too.
        if name in old_moments and moment.device == finite.device:
            moment.copy_(torch.where(finite, moment, old_moments[name]))
