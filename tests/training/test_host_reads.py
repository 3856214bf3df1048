"""No step reads a value from the device: each such read would have the host wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from i2i.config import parse_assignments
from i2i.data.config import DataConfig
from i2i.recipes.base import DataInfo
from i2i.recipes.presets import PRESETS
from i2i.registry import lookup, names
from i2i.runs.folder import RunFolder
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.settings import configure, recipe_or_preset
from i2i.training.trainer import Trainer

SMALL = {"generator.width": 4, "generator.max_channels": 8, "generator.z_dim": 16, "generator.w_dim": 8, "generator.mapping_layers": 2, "generator.blocks": 1,
         "discriminator.width": 4, "discriminator.max_channels": 8, "discriminator.layers": 1,
         "encoder.width": 4, "network.width": 4, "network.couplings": 1, "network.blocks": 1, "denoiser.width": 4}
READS = {torch.ops.aten._local_scalar_dense, torch.ops.aten.equal, torch.ops.aten.nonzero, torch.ops.aten.masked_select, torch.ops.aten.is_nonzero}
VARIANTS = {    # Components that no preset has.
    "pix2pix stabilizers": ("pix2pix", "augment=ada", "g_weight_norm=spectral", "feature_matching=layers", "lambda_history=0.1", "instance_noise=normal"),
    "dcgan wasserstein": ("dcgan", "adversarial=wasserstein", "penalty=clip", "discriminator.norm=none", "g_optimizer=rmsprop"),
    "dcgan unrolled": ("dcgan", "unrolling=adam", "unrolling.steps=2", "discriminator.norm=none"),
    "dcgan packed": ("dcgan", "pack=2", "latent=mixture", "augment=diffaugment")}
RUNS = {name: (name,) for name in dict.fromkeys([*names("recipe"), *PRESETS])} | VARIANTS


class NoHostReads(TorchDispatchMode):
    """Raises where a value would be read from the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        masks = args[1] if func._overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_) else ()
        if func._overloadpacket in READS or any(mask is not None and mask.dtype == torch.bool for mask in masks):
            raise AssertionError(f"{func} reads from the device")
        return func(*args, **(kwargs or {}))


def small_trainer(words: tuple[str, ...], folder: Path) -> Trainer:
    """With networks as small as their components allow."""
    name, preset = recipe_or_preset(words[0])
    recipe, data, config = lookup("recipe", name)(), DataConfig(), TrainConfig(images=64, batch_size=4)
    for each in (preset, words[1:]):
        recipe, data, config = configure(recipe, data, config, parse_assignments(each))
    for key, value in SMALL.items():
        try:
            recipe, data, config = configure(recipe, data, config, parse_assignments([f"{key}={value}"]))
        except ValueError:
            continue        # The component has no such option.
    return Trainer(recipe, DataInfo((32, 32), num_classes=2 if getattr(recipe, "conditional", False) else 0), config, Runtime(device="cpu"), RunFolder(folder), {})


@pytest.mark.parametrize("name", RUNS)
def test_no_step_of_any_preset_reads_from_the_device(name: str, tmp_path: Path) -> None:
    trainer = small_trainer(RUNS[name], tmp_path)
    batch: dict[str, Tensor] = {side: torch.rand(trainer.config.batch_size, 3, 32, 32) * 2 - 1 for side in "ab"}
    batch["c"] = torch.arange(trainer.config.batch_size) % 2
    with NoHostReads():
        for _ in range(3):
            trainer.advance(batch)
        trainer.advance({key: value * float("nan") if key != "c" else value for key, value in batch.items()})
    logs = trainer.state.optimizers.means()
    assert all(key.startswith("skipped_") or torch.isfinite(torch.tensor(value)) for key, value in logs.items())
    assert any(key.startswith("skipped_") for key in logs)
    assert all(torch.isfinite(value).all() for value in trainer.modules.state_dict().values() if value.is_floating_point())


def test_the_mode_notices_reads() -> None:
    for read in (lambda x: x.item(), lambda x: bool(x > 0), lambda x: float(x), lambda x: x[None][x[None] > 0]):
        with NoHostReads(), pytest.raises(AssertionError):
            read(torch.ones(()))
