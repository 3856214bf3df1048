"""Recipes that train with frozen feature networks: runs that resume, headers that name the networks, models that do without them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i import load, train
from i2i.errors import RequestError
from i2i.metrics.feature_networks import frozen_network
from i2i.nets import projected
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder

RUN = ("batch_size=4", "images=16", "log_every=8", "checkpoint_every=8", "async_writes=false")
NOISE = ("conditional=true", "generator=fastgan", "generator.width=4", "generator.z_dim=8", "g_weight_norm=spectral", "adversarial=hinge",
         "discriminator=projected", "discriminator.features=random", "discriminator.width=4", "discriminator.channels=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, g = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("dark", "light"):
        (folder / name).mkdir()
        for i in range(4):
            Image.fromarray(g.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_a_run_resumes_exactly_and_its_model_needs_no_feature_network(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "cut"):
        train("gan", *NOISE, *RUN, data=data, out=tmp_path / name, device="cpu")
    cut = RunFolder(tmp_path / "cut")
    cut.state(16).unlink()
    frozen_network.cache_clear()        # As in another process.
    train(resume=cut.path, device="cpu")
    (ours, _), (theirs, _) = (checkpoint.load(tmp_path / name / cut.state(16).name, "state") for name in ("cut", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)
    assert checkpoint.read_header(cut.model, "model")["feature_networks"] == {"random": frozen_network("random").weights}

    def absent(*arguments: object) -> None:
        raise RequestError("its weights are absent")

    expected = load(cut.model, "cpu").generate(2)
    monkeypatch.setattr(projected, "frozen_network", absent)
    projected.raw_sizes.cache_clear()
    assert torch.equal(load(cut.model, "cpu").generate(2), expected)
