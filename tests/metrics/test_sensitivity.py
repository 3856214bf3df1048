"""What judges see of planted faults: the faults by their definitions, and that the default judges see them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from i2i.data.image_set import ImageSet
from i2i.data.labeled import find_images
from i2i.data.sources import open_source
from i2i.metrics.feature_networks import FeatureExtractor, load_extractor
from i2i.metrics.kid import mmd2
from i2i.metrics.networks.random_filters import RandomFilters
from i2i.metrics.planted_faults import FAULTS, plant, sheet
from i2i.metrics.sensitivity import (
    COLLAPSED,
    DRAWS,
    NO_FAULT,
    Sample,
    Sensitivity,
    figures,
    measure,
    seen_by_any,
    table,
)

N = 60


@pytest.fixture(scope="module")
def sample() -> Sample:
    images = next(iter(find_images(open_source("fluent3d-64")).values()))
    assert images.labels is not None
    return Sample.draw(ImageSet(images.source, images.names).read, len(images), images.labels.tolist(), N)


@pytest.fixture(scope="module")
def random_judge(sample: Sample) -> Sensitivity:
    return measure(replace(load_extractor("random"), size=64), sample)      # The size of these pictures; four times as fast.


def gray(level: int, side: int = 32) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


class TestFaults:
    def test_every_fault_that_changes_images_changes_more_pixels_the_stronger_it_is(self, sample: Sample) -> None:
        some = sample.pool[:20]
        for fault in FAULTS.values():
            if fault.plant is None or fault.name == "shifted hue":      # Angles beyond 120 degrees come back.
                continue
            errors = [np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(plant(fault, some, strength), some, strict=True)])
                      for strength in fault.strengths]
            assert all(a < b for a, b in pairwise([0, *errors])), fault.name

    def test_faults_keep_what_they_do_not_concern(self) -> None:
        rng = np.random.default_rng(0)
        image = rng.integers(0, 256, (32, 32, 3), np.uint8)
        assert np.array_equal(plant(FAULTS["blur"], [gray(90)], 2)[0], gray(90))
        assert np.array_equal(plant(FAULTS["shifted hue"], [gray(90)], 120)[0], gray(90))
        assert np.array_equal(np.sort(plant(FAULTS["permuted channels"], [image], 1)[0], -1), np.sort(image, -1))
        assert np.array_equal(np.sort(plant(FAULTS["shuffled patches"], [image], 1)[0], None), np.sort(image, None))
        noisy = plant(FAULTS["noise"], [gray(128, 128)], 10)[0].astype(float)
        assert noisy.std() == pytest.approx(10, rel=0.05)
        red = np.zeros((4, 4, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
        assert np.abs(plant(FAULTS["shifted hue"], [red], 120)[0].astype(int) - [0, 200, 0]).max() <= 6        # 120 degrees on: green.

    def test_patches_that_change_places_are_whole_and_as_many_as_requested(self) -> None:
        image = np.repeat(np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4), 8, 0), 8, 1)[..., None].repeat(3, 2)
        for share in FAULTS["shuffled patches"].strengths:
            out = plant(FAULTS["shuffled patches"], [image], share)[0][::8, ::8, 0]
            assert sorted(out.ravel()) == list(range(16))
            assert (out.ravel() != np.arange(16)).sum() == round(16 * share)

    def test_the_same_seed_plants_the_same(self) -> None:
        image = gray(128)
        assert np.array_equal(plant(FAULTS["noise"], [image], 5)[0], plant(FAULTS["noise"], [image], 5)[0])

    def test_sets_that_collapse_or_lack_classes(self, sample: Sample) -> None:
        for times in FAULTS["repeated images"].strengths:
            chosen = sample.chosen(FAULTS["repeated images"], times)
            assert chosen is not None
            assert (len(chosen), len(set(chosen.tolist()))) == (N, N / times)
        assert sample.labels is not None
        for share in FAULTS["missing classes"].strengths:
            chosen = sample.chosen(FAULTS["missing classes"], share)
            if chosen is not None:
                assert len(set(sample.labels[chosen].tolist())) == 8 - round(8 * share)
                assert len(set(chosen.tolist())) == N
        assert replace(sample, labels=None).chosen(FAULTS["missing classes"], 0.5) is None

    def test_a_sheet_shows_every_fault_of_images(self) -> None:
        assert sheet([gray(90)] * 4).shape == (64 * 7, 64 * 12, 3)


class TestMeasure:
    def test_it_is_the_squared_mmd_relative_to_ten_images_repeated(self, sample: Sample) -> None:
        """By a judge that knows the mean color only."""
        extractor = FeatureExtractor("mean color", "0" * 64, "clean", 8, 3, lambda x: (x.mean((2, 3)), None))
        found = measure(extractor, sample, {"noise": FAULTS["noise"]})
        real, fake, noisy = (extractor.extract(images)[0].double().numpy()
                             for images in (sample.reals, sample.pool[:N], plant(FAULTS["noise"], sample.pool[:N], 20)))
        units = [mmd2(fake[np.random.default_rng(draw).permutation(N)[np.arange(N) % COLLAPSED]], real) for draw in range(DRAWS)]
        assert found.seen[NO_FAULT, 0] == pytest.approx(mmd2(fake, real) / np.mean(units))
        assert found.seen["noise", 20] == pytest.approx(mmd2(noisy, real) / np.mean(units))
        assert list(found.seen) == [(NO_FAULT, 0), ("noise", 5), ("noise", 10), ("noise", 20)]
        assert found.images_per_second > 0

    def test_too_few_images(self, sample: Sample) -> None:
        with pytest.raises(ValueError, match="50 images and as many others are needed, at least 20; these are 99"):
            Sample.draw(lambda i: gray(i), 99, None, 50)
        with pytest.raises(ValueError, match="at least 20"):
            Sample.draw(lambda i: gray(i), 99, None, 10)
        assert len(Sample.draw(lambda i: gray(i), 100, None, 50).pool) == 50

    def test_a_table_has_a_row_for_each_strength_and_a_column_for_each_judge(self, random_judge: Sensitivity) -> None:
        lines = table({"random": random_judge, "another": random_judge}).splitlines()
        assert lines[0] == "| fault | strength | random | another |"
        assert len(lines) == 2 + len(random_judge.seen) + 1
        assert "| JPEG | quality 25 |" in "".join(lines)
        assert len(figures({"random": random_judge})["random"]["seen"]) == len(random_judge.seen)


def test_random_filters_order_every_fault_of_images_by_its_strength(random_judge: Sensitivity) -> None:
    for fault in FAULTS.values():
        seen = [random_judge.seen[fault.name, strength] for strength in fault.strengths if not fault.needs_labels]
        assert all(a < b for a, b in pairwise(seen)), (fault.name, seen)
    assert abs(random_judge.seen[NO_FAULT, 0]) < 0.25


def test_the_default_judges_see_blur_as_well_as_collapse(random_judge: Sensitivity, sample: Sample) -> None:
    """Today's features alone: 0.18.  They order the strengths of blur and JPEG rightly, too."""
    few = Sample(sample.reals[:24], sample.pool[:24])
    judges = {"random": random_judge, "efficientnet-lite0": measure(load_extractor("efficientnet-lite0"), few, {"blur": replace(FAULTS["blur"], strengths=(1, 2))})}      # Of 24 pictures.
    lite0 = judges["efficientnet-lite0"].seen
    assert lite0["blur", 1] < lite0["blur", 2]
    assert lite0["blur", 1] < 0.5
    assert random_judge.seen["blur", 1] >= 0.9
    found = importlib.util.find_spec("i2i.metrics.judges")
    assert found
    assert found.loader
    found.loader.exec_module(fresh := importlib.util.module_from_spec(found))      # In tests/conftest.py the module has no second judges.
    defaults = {name: judges[name] for name in fresh.default_judges({}) if name in judges}
    assert seen_by_any({name: Sensitivity({("blur", 1): each.seen["blur", 1]}, 1) for name, each in defaults.items()})["blur", 1] >= 0.9


def test_the_command_writes_table_sheet_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomFilters, "size", 32)
    from typer.testing import CliRunner

    from i2i.cli import app
    page = tmp_path / "page.md"
    page.write_text("<!-- judges -->\n<!-- /judges -->\n")
    torch.set_num_threads(1)
    done = CliRunner().invoke(app, ["bench", "judges", "random", "--n", "20", "--docs", str(page), "--sheet", str(tmp_path / "s.png"),
                                    "--json", str(tmp_path / "r.json")])
    assert done.exit_code == 0, done.output
    assert "| blur | sigma 1 |" in page.read_text()
    assert (tmp_path / "s.png").is_file()
    assert "random" in json.loads((tmp_path / "r.json").read_text())
