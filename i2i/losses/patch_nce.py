"""PatchNCE: a contrastive loss between patches of the output and patches of the input."""

from typing import Annotated, Literal

from torch import Tensor
from typing_extensions import Doc

from i2i.nets.precision import fp32_island, to_float32

Negatives = Annotated[Literal["image", "batch"], Doc(
    "Patches that serve as negatives: those of the same image, or of all images in a process's batch")]


def patch_nce(query: Tensor, key: Tensor, temperature: float, negatives: Negatives = "image") -> Tensor:
    """Cross-entropy of matching each query with the key at its place.  Park et al. 2020, equation 3.

    The logits are q k / temperature; no gradient is taken of the keys.

    The reference code counts the positive a second time, with a similarity of -10, which at the usual
    temperature of 0.07 adds e^-143 to the sum.

    Args:
        query, key: vectors (N, P, C) of P patches, at equal places in both.

    Returns:
        Losses (N, P).
    """
    with fp32_island(query):
        shape, (query, key) = query.shape[:2], (to_float32(x) for x in (query, key.detach()))
        if negatives == "batch":
            query, key = query.flatten(0, 1)[None], key.flatten(0, 1)[None]
        logits = query @ key.mT / temperature
        return (logits.logsumexp(2) - logits.diagonal(dim1=1, dim2=2)).reshape(shape)
