"""Virtual batch normalization.  Salimans et al. 2016, section 3.4."""

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.precision import fp32_island, to_float32
from i2i.registry import register


@register("norm", "virtual")
class VirtualBatchNorm(nn.Module):
    """Normalize each image with the statistics of a fixed reference batch and of itself.

    The output for an image does not depend on the rest of its batch.  The first `reference` images of the
    input are the reference batch (see `ReferenceBatch`).  An image counts as one of them.
    """

    affine, eps = True, 1e-5

    def __init__(self, channels: int, reference: int = 0) -> None:
        super().__init__()
        require(reference > 0, "norm", "virtual",
                "batch, syncbatch, instance or none in this network, which has no reference batch; "
                "the generators dcgan, mlp and sagan and the discriminators dcgan and mlp have one")
        self.reference = reference
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(reference + N, C, H, W) -> the same shape"""
        n, dtype, x = self.reference, x.dtype, to_float32(x)
        with fp32_island(x):
            mean, variance = x.mean((2, 3)), x.var((2, 3), correction=0)        # Per image: (N, C).
            ref_mean = mean[:n].mean(0)
            ref_variance = variance[:n].mean(0) + mean[:n].var(0, correction=0)
            share = 1 / (n + 1)
            offset = mean[n:] - ref_mean
            own_variance = ((1 - share) * ref_variance + share * variance[n:]
                            + share * (1 - share) * offset.square())
            mean = torch.cat([ref_mean.expand(n, -1), ref_mean + share * offset])
            variance = torch.cat([ref_variance.expand(n, -1), own_variance])
            y = (x - mean[:, :, None, None]) * torch.rsqrt(variance + self.eps)[:, :, None, None]
            return (y * self.weight[:, None, None] + self.bias[:, None, None] if self.affine else y).to(dtype)


class ReferenceBatch(nn.Module):
    """The inputs that pass through a network before those of every batch; empty without virtual batch norm.

    They are buffers, hence part of checkpoints and model files, and random until a recipe sets them
    (`initialize`).  They cost a forward and backward pass of `count` more images of `shape`.
    """

    inputs: Tensor
    labels: Tensor
    initialized: Tensor

    def __init__(self, player: str, norm: str, count: int, shape: tuple[int, ...],
                 num_classes: int = 0) -> None:
        super().__init__()
        require(count >= 2, f"{player}.reference", count, "2 or more images")
        self.count, self.num_classes = count if norm == "virtual" else 0, num_classes
        if self.count:
            self.register_buffer("inputs", torch.randn(count, *shape))
            self.register_buffer("labels", torch.arange(count) % max(1, num_classes))
            self.register_buffer("initialized", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Prepend the reference.  (N, C, ...), (N) -> (count + N, C, ...), (count + N)"""
        if not self.count:
            return x, c
        return torch.cat([self.inputs.to(x.dtype), x]), c if c is None else torch.cat([self.labels, c])

    @torch.no_grad()
    def initialize(self, x: Tensor, c: Tensor | None = None) -> None:
        """Use these inputs and labels, repeated up to `count`, unless already initialized."""
        chosen = torch.arange(self.count, device=x.device) % len(x)
        self.inputs.copy_(torch.where(self.initialized > 0, self.inputs, x[chosen]))
        if c is not None:
            self.labels.copy_(torch.where(self.initialized > 0, self.labels, c[chosen]))
        self.initialized.fill_(1)


def get_reference_batch(network: nn.Module) -> ReferenceBatch | None:
    """The reference batch of a network with virtual batch norm, else None."""
    found = getattr(network, "reference", None)
    return found if isinstance(found, ReferenceBatch) and found.count else None
