"""update("D", loss): one gradient step of one player.  The only place where gradients are taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from i2i.clock import Clock
from i2i.engine import optimisers  # noqa: F401 - registers them.
from i2i.engine.runtime import Runtime
from i2i.errors import JobError
from i2i.recipes.base import Recipe
from i2i.spec import Spec, build


@torch.no_grad()
def clamp(parameters: list[Tensor], limit: float) -> None:
    """Keep parameters within [-limit, limit]; 0 is no limit."""
    if limit:
        torch._foreach_clamp_min_(parameters, -limit)
        torch._foreach_clamp_max_(parameters, limit)


def _lying_as(p: Tensor, value: Tensor) -> Tensor:
    """A moment of a parameter in its memory format: fused kernels go through both in the order of memory."""
    return torch.empty_like(p, dtype=value.dtype, device=value.device).copy_(value) if value.shape == p.shape else value


def _kept(optimiser: Spec) -> set[str]:
    """What an optimiser keeps for each parameter, found by a step with one."""
    p = nn.Parameter(torch.zeros(1))
    p.grad = torch.zeros(1)
    trial: torch.optim.Optimizer = build("optimiser", optimiser, [p])
    trial.step()
    return set(trial.state[p])


class Learner:
    """The optimisers of all players, and the running sums of what they log."""

    def __init__(self, recipe: Recipe, modules: nn.ModuleDict, runtime: Runtime, *, max_skips: int) -> None:
        self.runtime, self.max_skips = runtime, max_skips
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self._specs = {name: player.optimiser for name, player in recipe.players.items()}
        self._rates: dict[str, Any] = {}
        self._base: dict[str, float] = {}
        self._clips = {name: player.clip for name, player in recipe.players.items()}
        for name, player in recipe.players.items():
            parameters = [p for module in player.modules for p in modules[module].parameters()]
            self.optimisers[name] = build("optimiser", player.optimiser, parameters)
            self._base[name] = self.optimisers[name].param_groups[0]["lr"]
            self._rates[name] = build("schedule", player.schedule)
        self._sums: dict[str, Tensor] = {}                      # Sum and number of the finite values of each key.
        self._skipped = dict.fromkeys(self.optimisers, 0)       # In a row.
        self.skips = False              # Whether a player of this step was skipped.

    def begin(self, clock: Clock) -> None:
        """Set the learning rates of this step."""
        self.skips = False
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self._base[name] * self._rates[name](clock)

    def __call__(self, player: str, loss: Tensor, /, **logs: Tensor) -> None:
        """Gradients of `loss` for this player's parameters alone, averaged over processes, one optimiser step, and its limit kept.

        A step whose gradients are not finite is skipped by all processes alike; JobError after `max_skips` in a row.
        """
        optimiser = self.optimisers[player]
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        loss.backward(inputs=parameters)            # Nothing leaks into other players; nothing has to be frozen.
        self.runtime.average_gradients(parameters)
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if bool(torch.isfinite(norm)):              # After averaging, so all processes see the same.
            optimiser.step()
            clamp(parameters, self._clips[player])
            self._skipped[player] = 0
            for key, value in {**logs, f"grad_norm_{player}": norm}.items():
                self._add(key, value)
        else:
            self._skip(player)
        optimiser.zero_grad(set_to_none=True)       # Also frees the memory for the next player.

    def _skip(self, player: str) -> None:
        self.skips = True
        self._skipped[player] += 1
        self._add(f"skipped_{player}", torch.ones(()))
        if self._skipped[player] >= self.max_skips:
            raise JobError(f"the gradients of player {player} were not finite for {self.max_skips} steps in a row; "
                           "lower its learning rate or check the data for values that are not numbers")

    def _add(self, key: str, value: Tensor) -> None:
        value = value.detach().double() if value.device.type == "cpu" else value.detach().float()
        told = torch.stack([value, torch.ones_like(value)]).where(torch.isfinite(value), 0)       # One infinite loss would hide all others.
        self._sums[key] = self._sums[key] + told if key in self._sums else told

    def means(self) -> dict[str, float]:
        """Means of everything finite that was logged since the last call; counts of skipped steps."""
        out = {}
        for key, value in self._sums.items():
            total, count = self.runtime.mean(value).tolist()
            if count:
                out[key] = total if key.startswith("skipped_") else total / count
        self._sums = {}
        return out

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that has to survive: tensors and JSON data.  All processes must ask."""
        tensors = {f"log.{key}": value for key, value in self._sums.items()}
        tensors |= {f"log{rank}.{key}": value for rank, sums in self.runtime.gather(self._sums).items() for key, value in sums.items()}
        for player, optimiser in self.optimisers.items():
            for i, values in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{player}.{i}.{key}": value for key, value in values.items()}
        return tensors, {"logged": list(self._sums), "skipped": dict(self._skipped)}

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """The opposite of `state`.  ValueError and its like for what no learner has."""
        self._skipped = {player: int(data["skipped"][player]) for player in self.optimisers}
        mine = f"log{self.runtime.rank}"        # Of processes that were not there, the first one's.
        self._sums = {key: tensors.get(f"{mine}.{key}", tensors[f"log.{key}"]).to(self.runtime.device) for key in data["logged"]}   # In old order.
        for player, optimiser in self.optimisers.items():
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            state: dict[int, dict[str, Tensor]] = {}
            prefix = f"optimiser.{player}."
            for name, value in tensors.items():
                if name.startswith(prefix):
                    i, key = name[len(prefix):].split(".", 1)
                    if value.shape not in (parameters[int(i)].shape, ()):
                        raise ValueError(f"{name} is no moment of its parameter")
                    state.setdefault(int(i), {})[key] = _lying_as(parameters[int(i)], value)
            kept = _kept(self._specs[player])
            if any(values.keys() != kept for values in state.values()):
                raise ValueError(f"the optimiser of player {player} keeps {', '.join(sorted(kept))} for each parameter")
            optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
