"""Pool of previously generated images."""

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Up to `capacity` generated images of earlier steps.  Shrivastava et al. 2017, section 2.3.

    Until the pool is full, every image is stored and returned.  Then each is exchanged for a stored one with
    probability 1/2 (Zhu et al. 2017, section 4).  Its state is in buffers and no value is read by Python, so
    it resumes exactly, does not wait for a GPU and runs on meta tensors.
    """

    images: Tensor
    count: Tensor

    def __init__(self, capacity: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("images", torch.zeros(capacity, channels, *size))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """As many images, detached, about half of them from earlier steps.  (N, C, H, W) -> (N, C, H, W)"""
        images = images.detach()
        if not self.capacity:
            return images
        coins = torch.rand(len(images), device=images.device)
        slots = torch.randint(self.capacity, (len(images),), device=images.device)
        out = []
        # One after the other: an image may be exchanged for one stored just before.
        for image, coin, slot in zip(images.split(1), coins.split(1), slots.split(1), strict=True):
            full = self.count >= self.capacity
            exchange = full & (coin < 0.5)
            slot = torch.where(full, slot, self.count)
            stored = self.images.index_select(0, slot)
            out.append(torch.where(exchange, stored.to(image.dtype), image))
            self.images.index_copy_(0, slot, torch.where(exchange | ~full, image.to(stored.dtype), stored))
            self.count.add_(1).clamp_(max=self.capacity)
        return torch.cat(out)
