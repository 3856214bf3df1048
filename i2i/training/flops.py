"""Floating-point operations, counted."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class FlopCount(TorchDispatchMode):
    """Counts the floating-point operations of convolutions and matrix products made within it."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # Imports Triton where there is one.
        super().__init__()
        self.flops, self.formulas = 0, flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if count := self.formulas.get(func._overloadpacket):
            self.flops += int(count(*args, **(kwargs or {}), out_val=out))
        return out
