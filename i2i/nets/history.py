"""What the parameters of a player have been."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class HistoricalAverage(nn.Module):
    """|theta - mean of theta over all steps|^2: a player that circles is drawn to the middle.  Salimans et
    al. 2016, section 3.3.

    The means and their count are buffers, so that a resumed run has them.  Costs a copy of the parameters,
    and one pass over both in each step.
    """

    count: Tensor

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        for i, p in enumerate(parameters):
            # The first weights are the first of the past.
            self.register_buffer(f"mean_{i}", p.detach().clone())
        self.register_buffer("count", torch.ones((), dtype=torch.int64))

    def means(self) -> list[Tensor]:
        """One for each parameter."""
        return [value for name, value in self.named_buffers() if name != "count"]

    def forward(self, parameters: Iterable[Tensor]) -> Tensor:
        """The squared distance of the parameters, as they are, to their means.  -> ()"""
        return torch.stack([(p - mean).square().sum() for p,
                            mean in zip(parameters, self.means(), strict=True)]).sum()

    @torch.no_grad()
    def add(self, parameters: Iterable[Tensor]) -> None:
        """Once a step: the parameters as they are now belong to the past."""
        self.count.add_(1)
        for p, mean in zip(parameters, self.means(), strict=True):
            mean.add_((p - mean) / self.count)
