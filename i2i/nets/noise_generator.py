"""Base class of generators from noise."""

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.class_conditioning import ClassEmbedding, require_labels
from i2i.nets.virtual_batch_norm import ReferenceBatch


class NoiseGenerator(nn.Module):
    """A generator of images from z and a label.

    Args:
        z_dim: length of z.
        num_classes: 0 if there are no labels.
        concat: whether a label's embedding is concatenated to z.
        norm: the network's norm; `virtual` asks for a reference batch of `reference` images.
    """

    def __init__(self, z_dim: int, num_classes: int, *, concat: bool = True, norm: str = "none",
                 reference: int = 2) -> None:
        super().__init__()
        require(z_dim >= 1, "generator.z_dim", z_dim, "1 or more")
        self.z_dim, self.num_classes = z_dim, num_classes
        self.embedding = ClassEmbedding(num_classes, z_dim) if num_classes and concat else None
        self.reference = ReferenceBatch("generator", norm, reference, (z_dim,), num_classes)
        self.in_features = z_dim * (2 if self.embedding else 1)

    def inputs(self, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The reference batch, then z with labels: (N, z_dim), (N) -> (R + N, in_features), (R + N)"""
        z, c = self.reference(z, c)
        return torch.cat([z, self.embedding(require_labels(c))], 1) if self.embedding else z, c
