"""A discriminator together with everything between an image and its input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from i2i.nets.virtual_batch_norm import get_reference_batch
from i2i.recipes.discriminator_outputs import Logits, features_by_output


@dataclass(frozen=True)
class DiscriminatorView:
    """What stabilizers wrap: augmentation, noise and packing act in `inputs`, unrolling in `state`.

    Args:
        network: the discriminator.
        inputs: maps images `(N, C, H, W)` to the positional arguments of the network.
        state: parameters and buffers to run the network with in place of its own.
    """

    network: nn.Module
    inputs: Callable[[Tensor], tuple[Any, ...]] = lambda image: (image,)
    state: Mapping[str, Tensor] | None = None

    def __call__(self, image: Tensor) -> Logits:
        """Logits of images `(N, C, H, W)`."""
        return self.call("__call__", *self.inputs(image))

    def self_supervise(self, image: Tensor) -> tuple[Logits, dict[str, Tensor]]:
        """Logits of real images, and D's own loss on them by name if it has one, such as a reconstruction."""
        if not hasattr(self.network, "self_supervise"):
            return self(image), {}
        logits, loss = self.call("self_supervise", *self.inputs(image))
        return logits, {"self_supervised": loss}

    def features(self, image: Tensor) -> list[list[Tensor]]:
        """Hidden features of images for each output of the network, outermost layer first."""
        return features_by_output(self.call("features", *self.inputs(image)))

    def call(self, method: str, *inputs: Any) -> Any:
        """Call a method of the network on prepared inputs, with `state` if there is one."""
        if self.state is None:
            return getattr(self.network, method)(*inputs)
        state = {f"network.{name}": value for name, value in self.state.items()}
        return functional_call(_MethodCall(self.network), state, (method, *inputs))

    def set_reference(self, real: Tensor) -> None:
        """Make the real images of the first step the reference batch of virtual batch norm, if any."""
        if (reference := get_reference_batch(self.network)) is not None:
            reference.initialize(*self.inputs(real))


class _MethodCall(nn.Module):
    """Any method of a module, as the `forward` that `functional_call` calls."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, method: str, *inputs: Any) -> Any:
        return getattr(self.network, method)(*inputs)
