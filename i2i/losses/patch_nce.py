"""PatchNCE: a patch of the output is told from other patches by the patch of the input at its place."""

from typing import Annotated, Literal

from torch import Tensor
from typing_extensions import Doc

from i2i.nets.precision import fp32_island, to_float32

Negatives = Annotated[Literal["image", "batch"], Doc(
    "Patches that are told apart: those of an image, or of all images in the batch of a process")]


def patch_nce(query: Tensor, key: Tensor, temperature: float, negatives: Negatives = "image") -> Tensor:
    """-log softmax of q k+ / temperature among all k; keys are constants.  Park et al. 2020, equation 3.

    The reference code lets the positive count once more, with a similarity of -10, which adds e^-143 to the
    sum.

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
