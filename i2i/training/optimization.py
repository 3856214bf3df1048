"""update("D", loss): one gradient step of one player.  The only place where gradients are taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from i2i.errors import JobError
from i2i.recipes.base import Recipe
from i2i.registry import Spec, build
from i2i.seeding import Progress
from i2i.training import optimizers, schedules  # noqa: F401 - registers them.
from i2i.training.distributed import Runtime


@torch.no_grad()
def clamp(parameters: list[Tensor], limit: float) -> None:
    """Keep parameters within [-limit, limit]; 0 is no limit."""
    if limit:
        torch._foreach_clamp_min_(parameters, -limit)
        torch._foreach_clamp_max_(parameters, limit)


def _like_parameter(p: Tensor, value: Tensor) -> Tensor:
    """A moment of a parameter in its memory format: fused kernels go through both in the order of memory."""
    return torch.empty_like(p, dtype=value.dtype,
                            device=value.device).copy_(value) if value.shape == p.shape else value


def _moment_names(optimizer: Spec) -> set[str]:
    """What an optimizer keeps for each parameter, found by a step with one."""
    p = nn.Parameter(torch.zeros(1))
    p.grad = torch.zeros(1)
    trial: torch.optim.Optimizer = build("optimizer", optimizer, [p])
    trial.step()
    return set(trial.state[p])


class PlayerOptimizers:
    """The optimizers of all players, and the running sums of what they log."""

    def __init__(self, recipe: Recipe, modules: nn.ModuleDict, runtime: Runtime, *, max_skips: int) -> None:
        self.runtime, self.max_skips = runtime, max_skips
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._specs = {name: player.optimizer for name, player in recipe.players.items()}
        self._rates: dict[str, Any] = {}
        self._base: dict[str, float] = {}
        self._clips = {name: player.clip for name, player in recipe.players.items()}
        for name, player in recipe.players.items():
            parameters = [p for module in player.modules for p in modules[module].parameters()]
            self.optimizers[name] = build("optimizer", player.optimizer, parameters)
            self._base[name] = self.optimizers[name].param_groups[0]["lr"]
            self._rates[name] = build("schedule", player.schedule)
        # Sum and number of the finite values of each key.
        self._sums: dict[str, Tensor] = {}
        self._skipped = dict.fromkeys(self.optimizers, 0)       # In a row.
        self.skips = False              # Whether a player of this step was skipped.

    def begin(self, progress: Progress) -> None:
        """Set the learning rates of this step."""
        self.skips = False
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._base[name] * self._rates[name](progress)

    def __call__(self, player: str, loss: Tensor, /, **logs: Tensor) -> None:
        """Gradients of `loss` for this player's parameters alone, averaged over processes, one optimizer
        step, and its limit kept.

        A step whose gradients are not finite is skipped by all processes alike; JobError after `max_skips` in
        a row.
        """
        optimizer = self.optimizers[player]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # Nothing leaks into other players; nothing has to be frozen.
        loss.backward(inputs=parameters)
        self.runtime.average_gradients(parameters)
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if bool(torch.isfinite(norm)):              # After averaging, so all processes see the same.
            optimizer.step()
            clamp(parameters, self._clips[player])
            self._skipped[player] = 0
            for key, value in {**logs, f"grad_norm_{player}": norm}.items():
                self._add(key, value)
        else:
            self._skip(player)
        optimizer.zero_grad(set_to_none=True)       # Also frees the memory for the next player.

    def _skip(self, player: str) -> None:
        self.skips = True
        self._skipped[player] += 1
        self._add(f"skipped_{player}", torch.ones(()))
        if self._skipped[player] >= self.max_skips:
            raise JobError(f"the gradients of player {player} were not finite for {self.max_skips} steps in "
                           "a row; "
                           "lower its learning rate or check the data for values that are not numbers")

    def _add(self, key: str, value: Tensor) -> None:
        value = value.detach().double() if value.device.type == "cpu" else value.detach().float()
        # One infinite loss would hide all others.
        told = torch.stack([value, torch.ones_like(value)]).where(torch.isfinite(value), 0)
        self._sums[key] = self._sums[key] + told if key in self._sums else told

    def means(self) -> dict[str, float]:
        """Means of everything finite that was logged since the last call; counts of skipped steps."""
        out = {}
        for key, value in self._sums.items():
            total, count = self.runtime.all_reduce_mean(value).tolist()
            if count:
                out[key] = total if key.startswith("skipped_") else total / count
        self._sums = {}
        return out

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that has to survive: tensors and JSON data.  All processes must ask."""
        tensors = {f"log.{key}": value for key, value in self._sums.items()}
        tensors |= {f"log{rank}.{key}": value for rank,
                    sums in self.runtime.gather_tensors(self._sums).items() for key, value in sums.items()}
        for player, optimizer in self.optimizers.items():
            for i, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{player}.{i}.{key}": value for key, value in values.items()}
        return tensors, {"logged": list(self._sums), "skipped": dict(self._skipped)}

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """The opposite of `state`.  ValueError and its like for what no learner has."""
        self._skipped = {player: int(data["skipped"][player]) for player in self.optimizers}
        mine = f"log{self.runtime.rank}"        # Of processes that were not there, the first one's.
        # In old order.
        self._sums = {key: tensors.get(f"{mine}.{key}", tensors[f"log.{key}"]).to(self.runtime.device)
                      for key in data["logged"]}
        for player, optimizer in self.optimizers.items():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state: dict[int, dict[str, Tensor]] = {}
            prefix = f"optimizer.{player}."
            for name, value in tensors.items():
                if name.startswith(prefix):
                    i, key = name[len(prefix):].split(".", 1)
                    if value.shape not in (parameters[int(i)].shape, ()):
                        raise ValueError(f"{name} is no moment of its parameter")
                    state.setdefault(int(i), {})[key] = _like_parameter(parameters[int(i)], value)
            kept = _moment_names(self._specs[player])
            if any(values.keys() != kept for values in state.values()):
                raise ValueError(f"the optimizer of player {player} keeps {', '.join(sorted(kept))} for each "
                                 "parameter")
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
