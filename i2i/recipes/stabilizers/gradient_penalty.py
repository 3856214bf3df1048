"""Gradient penalties (i2i/losses/penalties.py) as a term of the discriminator's loss."""

from torch import Tensor, nn

from i2i.errors import require
from i2i.losses.penalties import lazy_penalty
from i2i.nets.norms import uses_batch_statistics
from i2i.recipes.discriminator_outputs import average_logits
from i2i.recipes.discriminator_view import DiscriminatorView
from i2i.recipes.stabilizers.packing import pack_images, unpack_images
from i2i.registry import Spec, build


def penalty_term(penalty: Spec, d_update: int, D: DiscriminatorView, real: Tensor, fake: Tensor,
                 pack: int) -> Tensor:
    """The penalty, `()`, after `d_update` updates of D; with packing, its gradients are those of packs."""
    return lazy_penalty(build("penalty", penalty), d_update,
                        lambda packs: average_logits(D(unpack_images(packs, pack))),
                        pack_images(real, pack), pack_images(fake, pack))


def clip_value(penalty: Spec) -> float:
    """The `Player.clip` that the penalty asks of the discriminator."""
    return float(build("penalty", penalty).clip)


def check_penalty(penalty: Spec, *discriminators: nn.Module) -> None:
    """RequestError for a gradient penalty with batch norm, where images depend on each other."""
    has_batch_norm = any(map(uses_batch_statistics, discriminators))
    invalid = has_batch_norm and build("penalty", penalty).uses_input_gradients
    require(not invalid, "penalty", penalty.name,
            "none with a discriminator that has batch norm, where the gradient belongs to no single image "
            "(Gulrajani et al. 2017, section 4); or set discriminator.norm=instance")
