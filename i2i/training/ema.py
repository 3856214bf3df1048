"""The exponential moving average of the generators' parameters."""

import copy

import torch
from torch import Tensor, nn

from i2i.seeding import Progress
from i2i.training.config import TrainConfig


class EMA:
    """Exponential moving averages of modules' parameters, with their buffers.  Karras et al. 2018, section 4.

    Without a half-life, the modules themselves.
    """

    def __init__(self, modules: nn.ModuleDict, names: tuple[str, ...], config: TrainConfig) -> None:
        self.half_life, self.ramp_up = config.ema_half_life, config.ema_ramp_up
        source = nn.ModuleDict({name: modules[name] for name in names})
        self.modules = copy.deepcopy(source).requires_grad_(False).eval() if self.half_life else source
        self._averages: list[Tensor] = list(self.modules.parameters())
        self._parameters: list[Tensor] = list(source.parameters())
        self._copies, self._buffers = list(self.modules.buffers()), list(source.buffers())

    def decay(self, progress: Progress) -> float:
        """Weight of the old average: 0.5 ^ (batch / half-life), the half-life ramped up with the images."""
        half_life = min(self.half_life, max(progress.images, progress.batch_size) * self.ramp_up)
        return 0.5 ** (progress.batch_size / half_life)

    @torch.no_grad()
    def update(self, progress: Progress) -> None:
        """Move the averages towards the parameters after one step."""
        if not self.half_life:
            return
        torch._foreach_lerp_(self._averages, self._parameters, 1 - self.decay(progress))
        if self._copies:
            torch._foreach_copy_(self._copies, self._buffers)
