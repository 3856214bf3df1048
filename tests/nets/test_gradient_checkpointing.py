"""Gradient checkpointing: results are bit-identical and fewer activations are stored."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from i2i.config import RequestError
from i2i.nets.gradient_checkpointing import RestoredBuffers, checkpoint_stage
from i2i.recipes.base import DataInfo, Recipe, set_checkpointing
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.seeding import Progress
from i2i.training.memory import estimate_memory

SMALL = {"width": 4, "z_dim": 8}
STYLE = {**SMALL, "w_dim": 8, "max_channels": 8, "mapping_layers": 2}
PLAIN = Spec("dcgan", {"width": 4, "norm": "none"})
RECIPES: dict[str, Recipe] = {
    "unet": Pix2Pix(generator=Spec("unet", {"width": 4}), discriminator=Spec("patch", {"width": 4, "layers": 1})),
    "unet-spectral": Pix2Pix(generator=Spec("unet", {"width": 4}), discriminator=Spec("patch", {"width": 4, "layers": 1}), g_weight_norm=Spec("spectral")),
    "resnet": CycleGAN(generator=Spec("resnet", {"width": 4, "blocks": 2, "norm": "batch", "dropout": 0.5}), discriminator=Spec("patch", {"width": 4, "layers": 1}), pool=0),
    "pix2pixhd": Pix2Pix(generator=Spec("pix2pixhd", {"width": 2, "blocks": 2, "norm": "batch", "dropout": 0.5}), discriminator=Spec("multiscale", {"width": 4, "layers": 1})),
    "spade": Pix2Pix(generator=Spec("spade", {"width": 2, "hidden": 4}), discriminator=Spec("multiscale", {"width": 4, "layers": 1})),
    "cut": CUT(generator=Spec("resnet", {"width": 4, "blocks": 2, "norm": "batch", "dropout": 0.5, "down": "blurpool"}),
               discriminator=Spec("patch", {"width": 4, "layers": 1}), nce_width=4, nce_layers=(0, 4, 8, 13), nce_patches=9, flip_equivariance=True),
    "dcgan": GAN(generator=Spec("dcgan", {**SMALL, "condition": "batchnorm"}), discriminator=PLAIN, conditional=True),
    "sagan": GAN(generator=Spec("sagan", SMALL), discriminator=PLAIN, g_weight_norm=Spec("spectral")),
    "progressive": GAN(generator=Spec("progressive", {**SMALL, "max_channels": 8}), discriminator=PLAIN),
    "stylegan": GAN(generator=Spec("stylegan", STYLE), discriminator=PLAIN),
    "stylegan2": GAN(generator=Spec("stylegan2", STYLE), discriminator=PLAIN, g_penalty=Spec("path-length", {"every": 1}))}


def one_step(recipe: Recipe, modules: nn.ModuleDict, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The gradients of all players in turn, and the buffers afterwards."""
    found: list[torch.Tensor] = []

    def update(player: str, loss: torch.Tensor, /, **logs: torch.Tensor) -> None:
        parameters = [p for name in recipe.players[player].modules for p in modules[name].parameters()]
        loss.backward(inputs=parameters)
        found.extend(torch.zeros(()) if p.grad is None else p.grad.clone() for p in parameters)
        for p in parameters:
            p.grad = None

    torch.manual_seed(5)
    recipe.step(modules.train(), batch, Progress(3, 2, 10), update)
    return [*found, *(b.clone() for b in modules.buffers()), torch.rand(3)]     # And as many random numbers were drawn.


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_and_buffers_are_bit_identical_and_fewer_activations_are_stored(name: str) -> None:
    recipe, info = RECIPES[name], DataInfo((32, 32), num_classes=2)
    torch.manual_seed(0)
    original = recipe.modules(info)
    again = copy.deepcopy(original)
    set_checkpointing(recipe, again, True)
    batch = {key: torch.rand(2, 3, 32, 32) * 2 - 1 for key in "ab"} | {"c": torch.tensor([0, 1])}
    for one, other in zip(one_step(recipe, original, batch), one_step(recipe, again, batch), strict=True):
        assert torch.equal(one, other)
    (_, before), (_, after) = (estimate_memory(recipe, info, batch_size=8, ema=False, gradient_checkpointing=wanted) for wanted in (False, True))
    assert after.working < before.working
    assert after.weights == before.weights


def test_nothing_is_recomputed_without_a_backward_pass() -> None:
    calls = []

    class Network(nn.Module):
        gradient_checkpointing = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint_stage(self, self.twice, x)

        def twice(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return (2 * x).square()

    x, network = torch.ones(1, requires_grad=True), Network()
    with torch.no_grad():
        network(x)
    network.eval()(x).backward()
    assert len(calls) == 2
    network.train()(x).backward()
    assert len(calls) == 4


def test_each_recomputation_sees_the_first_buffers_and_then_restores_the_current_ones() -> None:
    norm = nn.BatchNorm1d(2)
    mean = norm.running_mean
    before = RestoredBuffers([norm])
    norm(torch.randn(4, 2))
    moved = norm.running_mean.clone()
    for _ in range(2):
        with before:
            assert torch.equal(norm.running_mean, torch.zeros(2))
            norm(torch.randn(4, 2))
    assert norm.running_mean is mean
    assert torch.equal(norm.running_mean, moved)


def test_a_generator_that_does_not_support_it_is_refused() -> None:
    recipe: Any = GAN(generator=Spec("mlp", {"width": 4}), discriminator=PLAIN)
    with pytest.raises(RequestError, match=r"train\.gradient_checkpointing=true cannot be used; accepted: false"):
        set_checkpointing(recipe, recipe.modules(DataInfo((32, 32))), True)
