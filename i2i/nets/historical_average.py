"""Historical averaging.  Salimans et al. 2016, section 3.3."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class HistoricalAverage(nn.Module):
    """|theta - mean of theta over all steps|^2, a penalty that damps players that circle each other.

    The means and their count are buffers.  Costs a copy of the parameters.
    """

    count: Tensor

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        for i, p in enumerate(parameters):
            self.register_buffer(f"mean_{i}", p.detach().clone())       # The initial weights count as a step.
        self.register_buffer("count", torch.ones((), dtype=torch.int64))

    def means(self) -> list[Tensor]:
        """The mean of each parameter."""
        return [value for name, value in self.named_buffers() if name != "count"]

    def forward(self, parameters: Iterable[Tensor]) -> Tensor:
        """Squared distance of the parameters to their means, a scalar."""
        return torch.stack([(p - mean).square().sum()
                            for p, mean in zip(parameters, self.means(), strict=True)]).sum()

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor]) -> None:
        """Include the current parameters in the means; called once per step."""
        self.count.add_(1)
        for p, mean in zip(parameters, self.means(), strict=True):
            mean.add_((p - mean) / self.count)
