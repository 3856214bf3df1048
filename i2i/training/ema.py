"""Exponential moving average of generating modules, half-life counted in images.  Karras et al. 2018, section
4; Yazici et al. 2019."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from i2i.seeding import Progress
from i2i.training.config import TrainConfig


class EMA:
    """Copies of modules that follow them slowly; buffers are copied."""

    def __init__(self, modules: nn.ModuleDict, names: tuple[str, ...], config: TrainConfig) -> None:
        self.half_life, self.ramp_up = config.ema_half_life, config.ema_ramp_up
        self.live = [modules[name] for name in names]
        self.modules = nn.ModuleDict({name: copy.deepcopy(modules[name]) if self.half_life else modules[name]
                                      for name in names})
        if self.half_life:
            self.modules.requires_grad_(False)
            self.modules.eval()
        kept = list(self.modules.values())
        self._to: list[Tensor] = [p for m in kept for p in m.parameters()]
        self._from: list[Tensor] = [p for m in self.live for p in m.parameters()]

    def decay(self, progress: Progress) -> float:
        """The share of the average that one step keeps: 0.5 ^ (batch / half-life), the half-life ramped up
        with the images seen."""
        half_life = min(self.half_life, max(progress.images, progress.batch_size) * self.ramp_up)
        return 0.5 ** (progress.batch_size / half_life)

    @torch.no_grad()
    def update(self, progress: Progress) -> None:
        """Move the average towards the live modules after one step."""
        if not self.half_life:
            return
        torch._foreach_lerp_(self._to, self._from, 1 - self.decay(progress))
        for kept, live in zip(self.modules.values(), self.live, strict=True):
            for old, new in zip(kept.buffers(), live.buffers(), strict=True):
                old.copy_(new)
