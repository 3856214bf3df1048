"""Several discriminators at once, as in `discriminator=projected+patch`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.virtual_batch_norm import get_reference_batch
from i2i.registry import register_combination


@register_combination("discriminator")
class SeveralDiscriminators(nn.Module):
    """Discriminators of the same images.  The losses of D and of G are the sums of those of each.

    What it returns are tuples of what each returns.  It has the method `features` if all of them do.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.num_classes = max(part.num_classes for part in parts.values())
        name = "+".join(parts)
        require(not any(get_reference_batch(part) for part in parts.values()), f"discriminator={name} norm",
                "virtual", "batch, instance or none: several discriminators share no reference batch")
        if all(hasattr(part, "features") for part in parts.values()):
            self.features = self._features

    def set_progress(self, fraction: float) -> None:
        """Let those that grow do so."""
        for part in self.parts.values():
            if callable(method := getattr(part, "set_progress", None)):
                method(fraction)

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Any, ...]:
        """(N, C, H, W), (N) labels -> logits of each"""
        return tuple(part(x, c) for part in self.parts.values())

    def self_supervise(self, x: Tensor, c: Tensor | None = None) -> tuple[tuple[Any, ...], Tensor]:
        """Logits of real images, and the sum of the losses of those that have one of their own, `()`."""
        logits, total = [], x.new_zeros(())
        for part in self.parts.values():
            if callable(method := getattr(part, "self_supervise", None)):
                own, loss = method(x, c)
                total = total + loss
            else:
                own = part(x, c)
            logits.append(own)
        return tuple(logits), total

    def _features(self, x: Tensor, c: Tensor | None = None) -> list[list[Tensor]]:
        """Features of each output of each, outermost layer first."""
        out: list[list[Tensor]] = []
        for part in self.parts.values():
            found = part.features(x, c)  # type: ignore[operator]
            out += [found] if isinstance(found[0], Tensor) else found
        return out
