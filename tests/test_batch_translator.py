"""A model as a function of batches: pickled without weights, in Ray, and on files as Spark has them."""

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from i2i import BatchTranslator, RequestError, load
from tests.conftest import drawing

IMAGES = np.stack([drawing(i)[:, 32:] for i in range(5)])


def test_a_column_is_translated_and_the_others_are_passed_on(trained: Path) -> None:
    translate, model = BatchTranslator(trained, out="made", device="cpu", batch_size=2), load(trained, device="cpu")
    batch = {"image": IMAGES, "name": np.array(list("abcde"))}
    result = translate(batch)
    assert list(result) == ["image", "name", "made"]
    assert result["image"] is IMAGES
    assert result["made"].shape == IMAGES.shape
    for image, made in zip(IMAGES, result["made"], strict=True):
        assert np.abs(made.astype(int) - model.translate(image)).max() <= 1
    assert BatchTranslator(trained, device="cpu")({"image": IMAGES[:0]})["image"].shape == (0,)


def test_images_of_several_sizes_and_kinds_come_back_in_order(trained: Path) -> None:
    images = [IMAGES[0], IMAGES[1][:20, :17], IMAGES[2][..., 0], IMAGES[3]]
    column = np.empty(4, object)
    column[:] = images
    model = load(trained, device="cpu")
    made = BatchTranslator(trained, device="cpu")({"image": column})["image"]
    assert [each.shape for each in made] == [(32, 32, 3), (20, 17, 3), (32, 32, 3), (32, 32, 3)]
    for image, each in zip(images, made, strict=True):
        assert np.abs(each.astype(int) - model.translate(image)).max() <= 1


def test_it_is_pickled_without_weights_and_loads_in_another_process(trained: Path, tmp_path: Path) -> None:
    translate = BatchTranslator(trained, device="cpu")
    expected = translate({"image": IMAGES})["image"]
    data = pickle.dumps(translate)
    assert len(data) < 1000
    (tmp_path / "batch.pickle").write_bytes(pickle.dumps((translate, IMAGES)))
    code = "import pickle, sys, numpy, torch; torch.set_num_threads(1); translate, images = pickle.load(open(sys.argv[1], 'rb')); numpy.save(sys.argv[2], translate({'image': images})['image'])"
    subprocess.run([sys.executable, "-c", code, tmp_path / "batch.pickle", tmp_path / "made.npy"], check=True, timeout=300)
    assert np.array_equal(np.load(tmp_path / "made.npy"), expected)


def test_copies_in_one_process_share_the_model_until_its_file_changes(trained: Path, tmp_path: Path) -> None:
    import os
    import shutil
    shutil.copy(trained / "model.safetensors", tmp_path / "model.safetensors")
    translate = BatchTranslator(tmp_path / "model.safetensors", device="cpu")
    copy = pickle.loads(pickle.dumps(translate))
    assert copy.model is translate.model
    os.utime(tmp_path / "model.safetensors", (1, 1))
    assert pickle.loads(pickle.dumps(translate)).model is not translate.model


def file(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def test_files_are_translated_as_a_pandas_series_of_bytes(trained: Path) -> None:
    """What a pandas UDF of Spark gets and returns (docs/translate.md)."""
    translate, model = BatchTranslator(trained, device="cpu"), load(trained, device="cpu")
    made = pd.Series(translate.files(pd.Series([file(image) for image in IMAGES])))
    for data, image in zip(made, IMAGES, strict=True):
        assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - model.translate(image)).max() <= 1


def test_wrong_requests_are_one_line(trained: Path, noisy: dict[str, Path]) -> None:
    translate = BatchTranslator(trained, device="cpu")
    for call, words in ((lambda: translate({"picture": IMAGES}), "column=image is not in the batch; it has picture"),
                        (lambda: translate({"image": IMAGES.astype(np.float64)}), "float64"),
                        (lambda: translate.files([file(IMAGES[0]), b"no"]), "file 1: not an image"),
                        (lambda: translate.files([file(IMAGES[0])], ".gif"), "suffix=.gif"),
                        (lambda: BatchTranslator("absent", device="cpu")({"image": IMAGES}), "absent"),
                        (lambda: BatchTranslator(trained, batch_size=-1), "batch_size=-1"),
                        (lambda: BatchTranslator(trained, direction="ba", device="cpu")({"image": IMAGES}), "direction ba"),
                        (lambda: BatchTranslator(noisy["plain"], device="cpu")({"image": IMAGES}), "makes images from noise")):
        with pytest.raises(RequestError, match=words):
            call()


@pytest.mark.slow
def test_ray_maps_batches_with_it(trained: Path) -> None:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    expected = BatchTranslator(trained, device="cpu")({"image": IMAGES})["image"]
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    try:
        rows = ray.data.from_items([{"name": i, "image": image} for i, image in enumerate(IMAGES)])
        for made in (rows.map_batches(BatchTranslator(trained, device="cpu"), batch_size=2),
                     rows.map_batches(BatchTranslator, fn_constructor_args=(str(trained),), fn_constructor_kwargs={"device": "cpu"}, batch_size=2, concurrency=1)):
            found = {row["name"]: row["image"] for row in made.take_all()}
            assert sorted(found) == list(range(5))
            for i, image in found.items():
                assert np.abs(image.astype(int) - expected[i]).max() <= 1
    finally:
        ray.shutdown()
