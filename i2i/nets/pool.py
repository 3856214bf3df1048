"""Images that a generator made earlier."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Up to `capacity` generated images, so that D does not forget what G did before.  Shrivastava et al.
    2017, section 2.3.

    While it fills, every image is kept and handed back.  Then each is, half of the time, exchanged for one of
    the past: as Zhu et al. 2017, section 4.  Images, count and nothing else are its state (buffers), so a
    resumed run draws the same; no value is read by Python, so nothing waits for a GPU and a plan can run it
    on tensors without data.
    """

    images: Tensor
    count: Tensor

    def __init__(self, capacity: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("images", torch.zeros(capacity, channels, *size))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def forward(self, fresh: Tensor) -> Tensor:
        """As many images, without gradients, about half of them from the past.  NCHW -> NCHW"""
        fresh = fresh.detach()
        if not self.capacity:
            return fresh
        coins = torch.rand(len(fresh), device=fresh.device)
        places = torch.randint(self.capacity, (len(fresh),), device=fresh.device)
        out = []
        # In turn: one may be given another.
        for image, coin, place in zip(fresh.split(1), coins.split(1), places.split(1), strict=True):
            full = self.count >= self.capacity
            exchanged = full & (coin < 0.5)
            at = torch.where(full, place, self.count)
            past = self.images.index_select(0, at)
            out.append(torch.where(exchanged, past.to(image.dtype), image))
            self.images.index_copy_(0, at, torch.where(exchanged | ~full, image.to(past.dtype), past))
            self.count.add_(1).clamp_(max=self.capacity)
        return torch.cat(out)
