"""Historical averaging: pull each player to the mean of its past parameters.  Salimans et al. 2016."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from i2i.recipes.base import Player, Update, get_module


class HistoricalAverage(nn.Module):
    """|theta - mean of theta over all steps|^2, theta the parameters of one player."""

    count: Tensor

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        for i, p in enumerate(parameters):
            self.register_buffer(f"mean_{i}", p.detach().clone())       # The first weights count as past.
        self.register_buffer("count", torch.ones((), dtype=torch.int64))

    def means(self) -> list[Tensor]:
        return [value for name, value in self.named_buffers() if name != "count"]

    def forward(self, parameters: Iterable[Tensor]) -> Tensor:
        """Squared distance of the current parameters to their means.  -> `()`"""
        pairs = zip(parameters, self.means(), strict=True)
        return torch.stack([(p - mean).square().sum() for p, mean in pairs]).sum()

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor]) -> None:
        """Include the current parameters in the means; called once per step."""
        self.count.add_(1)
        for p, mean in zip(parameters, self.means(), strict=True):
            mean.add_((p - mean) / self.count)


def historical_averages(m: nn.ModuleDict, players: Mapping[str, Player],
                        weight: float) -> dict[str, HistoricalAverage]:
    """The modules to add to a recipe: one `HistoricalAverage` a player; none for weight 0."""
    return {f"H_{name}": HistoricalAverage(_parameters(m, player))
            for name, player in players.items() if weight}


def with_historical_averaging(update: Update, m: nn.ModuleDict, players: Mapping[str, Player],
                              weight: float) -> Update:
    """`update` with weight * `HistoricalAverage` added to each player's loss."""
    if not weight:
        return update

    def averaging_update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        history, parameters = get_module(m, f"H_{player}"), _parameters(m, players[player])
        distance = history(parameters)
        update(player, loss + weight * distance, **logs, **{f"history_{player}": distance})
        history.update(parameters)

    return averaging_update


def _parameters(m: nn.ModuleDict, player: Player) -> list[Tensor]:
    return [p for name in player.modules for p in m[name].parameters()]
