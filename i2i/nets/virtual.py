"""The batch that virtual batch norm compares all others with.  Salimans et al. 2016, section 3.4."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets import norms


class Reference(nn.Module):
    """Inputs of a network, chosen once, which go through it before those of every batch; without virtual
    batch norm there are none.

    They are buffers, so a resumed run and a model file have them.  They are noise until a recipe gives the
    first that count (`take`).  Costs a forward and backward pass of as many images more.
    """

    inputs: Tensor
    labels: Tensor
    taken: Tensor

    def __init__(self, player: str, norm: str, count: int, shape: tuple[int, ...],
                 num_classes: int = 0) -> None:
        super().__init__()
        require(count >= 2, f"{player}.reference", count, "2 or more images")
        self.count, self.num_classes = count if norms.compares(norm) else 0, num_classes
        if self.count:
            self.register_buffer("inputs", torch.randn(count, *shape))
            self.register_buffer("labels", torch.arange(count) % max(1, num_classes))
            self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The same after the chosen ones.  NC…, N -> (count + N)C…, count + N"""
        if not self.count:
            return x, c
        return torch.cat([self.inputs.to(x.dtype), x]), c if c is None else torch.cat([self.labels, c])

    @torch.no_grad()
    def take(self, x: Tensor, c: Tensor | None = None) -> None:
        """Choose these, over and over where they are fewer than `count`, unless a choice has been made.  No
        program waits for the device."""
        chosen = torch.arange(self.count, device=x.device) % len(x)
        self.inputs.copy_(torch.where(self.taken > 0, self.inputs, x[chosen]))
        if c is not None:
            self.labels.copy_(torch.where(self.taken > 0, self.labels, c[chosen]))
        self.taken.fill_(1)


def reference_of(network: nn.Module) -> Reference | None:
    """What the network compares with, if it does."""
    found = getattr(network, "reference", None)
    return found if isinstance(found, Reference) and found.count else None
