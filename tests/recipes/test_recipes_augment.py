"""Augmentation in all recipes: what D sees, and what adaptive augmentation observes."""

from typing import Any

import pytest
import torch
from torch import nn

from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.infogan import InfoGAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.seeding import Progress
from i2i.training.memory import estimate_memory

SMALL = ["generator.width=2", "discriminator.width=2"]
RECIPES = {"pix2pix": Pix2Pix(), "cyclegan": CycleGAN(), "cut": CUT(), "gan": GAN(), "infogan": InfoGAN()}
WORDS = {"pix2pix": ["discriminator.layers=1", "discriminator.norm=instance"],
         "cyclegan": ["discriminator.layers=1", "generator.blocks=1", "pool=0"],
         "cut": ["discriminator.layers=1", "generator.blocks=1", "nce_width=4", "nce_layers=0,4,8", "nce_patches=4"],
         "gan": ["discriminator.norm=instance"], "infogan": ["discriminator.norm=instance"]}


def made(name: str, *words: str) -> tuple[Recipe, nn.ModuleDict]:
    recipe = override(RECIPES[name], parse_assignments([*SMALL, *WORDS[name], *words]))
    torch.manual_seed(0)
    return recipe, recipe.modules(DataInfo((16, 16)))


def batch() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {side: torch.rand(2, 3, 16, 16, generator=g) * 2 - 1 for side in "ab"}


def updates(recipe: Recipe, m: nn.ModuleDict, x: dict[str, torch.Tensor], step: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """One step without an optimizer.  -> player -> logs, gradients of its modules as grad_NAME"""
    out: dict[str, dict[str, torch.Tensor]] = {}

    def update(player: str, loss: torch.Tensor, /, **logs: torch.Tensor) -> None:
        for name in recipe.players[player].modules:
            if parameters := list(m[name].parameters()):
                logs[f"grad_{name}"] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
        out[player] = logs

    torch.manual_seed(2)
    recipe.step(m, x, Progress(step, 2, 10**4), update)
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_d_sees_only_augmented_images(name: str) -> None:
    """Real and generated ones, for both players and in the penalty; and a pair moves together."""
    recipe, m = made(name, "augment=ada", "augment.p=1", "augment.speed=0", "augment.policy=geom", "penalty=r1", "adversarial=rpgan")
    x = {side: batch()["a"] for side in "ab"} if name == "pix2pix" else batch()
    seen: dict[str, list[torch.Tensor]] = {key: [] for key in m if key.startswith("D")}
    for key, inputs in seen.items():
        m[key].layers[0].register_forward_pre_hook(lambda module, args, inputs=inputs: inputs.append(args[0].detach()))
    shown = {key: [value.clone() for value in x.values()] for key in seen}

    def remember(module: nn.Module, inputs: tuple[torch.Tensor, ...], out: Any) -> None:
        for images in shown.values():
            images.append((out[0] if isinstance(out, tuple) else out).detach())

    for key in m:
        if key.startswith("G"):
            m[key].register_forward_hook(remember)
    updates(recipe, m, x)
    for key, inputs in seen.items():
        assert len(inputs) == 5, key        # D: fake, real, penalty; G: fake and, this loss being relativistic, real.
        for images in (part for whole in inputs for part in whole.split(3, 1)):
            assert not any(torch.equal(image, known) for image in images for whole in shown[key] for known in whole), key
    if name == "pix2pix":       # The real pair of equal pictures stays one of equal pictures, wherever it went.
        assert sum(torch.equal(*whole.split(3, 1)) for whole in seen["D"]) == 3


@pytest.mark.parametrize("name", RECIPES)
def test_g_learns_through_the_augmentation_and_none_changes_nothing(name: str) -> None:
    none = updates(*made(name), batch())
    again = updates(*made(name, "augment=none"), batch())
    varied = updates(*made(name, "augment=diffaugment"), batch())
    for player, logs in none.items():
        for key, value in logs.items():
            assert torch.equal(value, again[player][key])
            assert not key.startswith("grad") or not torch.equal(value, varied[player][key]), key
    assert all(torch.isfinite(value).all() for logs in varied.values() for value in logs.values())


@pytest.mark.parametrize("name", RECIPES)
def test_ada_observes_each_d_once_a_step_and_is_logged(name: str) -> None:
    recipe, m = made(name, "augment=ada", "augment.interval=1", "augment.speed=100")
    T = {key: m[key] for key in m if key.startswith("T")}
    assert len(T) == (2 if name == "cyclegan" else 1)
    for key in T:
        nn.init.constant_([*m[key.replace("T", "D")].parameters()][-1], 50.0)      # The bias of the logits: all images are real, D says.
    for step in range(3):
        logs = updates(recipe, m, batch(), step)
    for key, module in T.items():
        assert module.p.item() == pytest.approx(0.04), key      # Two adjustments of 2 images of 100.
        assert logs["D"]["augment_p" + key[1:]].item() == pytest.approx(0.04)
        assert module.count.item() == 2
        assert module.sign_sum.item() == 2


@pytest.mark.parametrize("name", ["pix2pix", "gan", "infogan"])
def test_ada_compares_least_squares_logits_with_the_decision_boundary(name: str) -> None:
    recipe, m = made(name, "augment=ada", "adversarial=lsgan")
    for bias, sign in ((0.45, -1), (0.55, 1)):
        for p in m["D"].parameters():
            nn.init.zeros_(p)
        nn.init.constant_([*m["D"].parameters()][-1], bias)
        before = m["T"].sign_sum.item()
        updates(recipe, m, batch())
        assert m["T"].sign_sum.item() - before == 2 * sign


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("loss", ["wasserstein", "rpgan", "ragan", "ralsgan"])
def test_ada_is_refused_if_the_sign_of_a_logit_has_no_meaning(name: str, loss: str) -> None:
    with pytest.raises(RequestError, match=rf"augment=ada.*augment.speed=0.*adversarial={loss}"):
        made(name, "augment=ada", f"adversarial={loss}")
    recipe, m = made(name, "augment=ada", "augment.p=0.3", "augment.speed=0", f"adversarial={loss}")
    updates(recipe, m, batch())
    assert next(m[key] for key in m if key.startswith("T")).p.item() == pytest.approx(0.3)


@pytest.mark.parametrize("name", RECIPES)
def test_the_memory_estimate_includes_the_augmentation(name: str) -> None:
    recipe, _ = made(name, "augment=ada", "penalty=r1")
    parts, _ = estimate_memory(recipe, DataInfo((16, 16)), batch_size=2, ema=True)
    assert {part.name: part.parameters for part in parts if part.name.startswith("T")} == dict.fromkeys(["T_a", "T_b"] if name == "cyclegan" else ["T"], 0)
