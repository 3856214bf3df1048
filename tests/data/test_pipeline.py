"""Albumentations pipelines of users: what they change, that runs stay exact, and what is refused in one line."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from i2i.data.config import DataConfig
from i2i.data.format_detection import inspect_dataset
from i2i.data.labeled import find_images
from i2i.data.loader import batches
from i2i.data.paired import find_paired
from i2i.data.pipeline import Pipeline, make_pipelines, read_pipelines
from i2i.data.sources import open_source
from i2i.data.unpaired import find_unpaired
from i2i.errors import JobError, RequestError
from i2i.images.format import Array, ImageFormat
from tests.conftest import SMALL, Run

SIZE = (32, 40)
COLOR, GRAY, LABELS = ImageFormat(3), ImageFormat(1), ImageFormat(1, resize="nearest")


def write(path: Path, *transforms: Any, **options: Any) -> Path:
    A.save(A.Compose(list(transforms), **options), path, data_format="json" if path.suffix == ".json" else "yaml")
    return path


def made(path: Path, setting: str = "transforms", *, streams: Sequence[str] = ("ab",), formats: tuple[ImageFormat, ImageFormat] = (COLOR, COLOR),
         crop: tuple[int, int] = (16, 16), direction: Any = "ab") -> tuple[Pipeline, ...]:
    config = DataConfig(**{setting: str(path)}, direction=direction)
    return make_pipelines(read_pipelines(config), config, streams, formats, crop)


def noise(format: ImageFormat, size: tuple[int, int] = SIZE, seed: int = 0) -> Array:
    low, high = format.limits
    values = np.random.default_rng(seed).uniform(low, high, (*size, format.channels) if format.channels > 1 else size)
    return values.round().astype(format.dtype) if format.dtype != "float32" else values.astype(np.float32)


def equal(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


# ------------------------------------------------------------------------------------------ what it changes

@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_both_images_of_a_pair_change_alike(tmp_path: Path, suffix: str) -> None:
    (pipeline,) = made(write(tmp_path / f"aug{suffix}", A.Affine(rotate=(-30, 30), p=1), A.ColorJitter(p=0.5), A.GaussNoise(std_range=(1e-05, 0.1), p=0.5)))
    image = noise(COLOR)
    for seed in range(10):
        out = pipeline({"a": image, "b": image}, seed)
        assert np.array_equal(out["a"], out["b"])
        assert not np.array_equal(out["a"], image)


def test_transforms_draw_independently(tmp_path: Path) -> None:
    """`set_random_seed` gives each transform the same numbers: two of p=0.5 would always come together."""
    (pipeline,) = made(write(tmp_path / "aug.yaml", A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)))
    image = noise(COLOR)
    kinds = {name: sum(np.array_equal(pipeline({"a": image, "b": image}, seed)["a"], flipped) for seed in range(200))
             for name, flipped in {"none": image, "h": image[:, ::-1], "v": image[::-1], "hv": image[::-1, ::-1]}.items()}
    assert sum(kinds.values()) == 200
    assert min(kinds.values()) > 25, kinds


def test_label_maps_move_and_keep_their_values(tmp_path: Path) -> None:
    (pipeline,) = made(write(tmp_path / "aug.yaml", A.Affine(rotate=(20, 20), scale=1.3, p=1), A.RandomBrightnessContrast(p=1)), formats=(LABELS, COLOR))
    labels = np.zeros(SIZE, np.uint8)
    labels[8:20, 10:30] = 7
    image = np.repeat(labels[..., None] * 20, 3, axis=2)
    out = pipeline({"a": labels, "b": image}, 1)
    assert set(np.unique(out["a"])) == {0, 7}
    bright = out["b"][..., 0] > np.median(out["b"][out["a"] == 0]) + 30
    assert (bright == (out["a"] == 7)).mean() > 0.95      # It has moved with the image.
    (both,) = made(tmp_path / "aug.yaml", formats=(LABELS, LABELS))
    out = both({"a": labels, "b": labels}, 1)
    assert np.array_equal(out["a"], out["b"])
    assert set(np.unique(out["a"])) == {0, 7}


def test_a_mask_serves_transforms_that_need_one(tmp_path: Path) -> None:
    path = write(tmp_path / "aug.yaml", A.CropNonEmptyMaskIfExists(16, 16, p=1))
    (pipeline,) = made(path, formats=(COLOR, LABELS))
    pipeline.check(SIZE)
    labels = np.zeros(SIZE, np.uint8)
    labels[3, 5] = 1
    out = pipeline({"a": noise(COLOR), "b": labels}, 0)
    assert out["b"].any()
    assert out["a"].shape == (16, 16, 3)
    with pytest.raises(RequestError, match=r"CropNonEmptyMaskIfExists cannot be used for .*mask"):
        made(path)[0].check(SIZE)


@pytest.mark.parametrize("format", [
    COLOR, GRAY, ImageFormat(1, "uint16"), ImageFormat(3, "uint16", (0, 4095)), ImageFormat(1, "float32", (-1000.0, 3000.0)), ImageFormat(2, alpha=True),
    ImageFormat(4, alpha=True), ImageFormat(4, "uint16", alpha=True), ImageFormat(7), ImageFormat(5, "float32", (0.0, 2.0)),
    ImageFormat(1, "uint16", resize="nearest")], ids=str)
def test_images_of_any_format(tmp_path: Path, format: ImageFormat) -> None:
    (pipeline,) = made(write(tmp_path / "aug.yaml", A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast(p=0.3)), formats=(format, format))
    pipeline.check(SIZE)
    image = noise(format)
    kinds = set()
    for seed in range(30):
        out = pipeline({"a": image, "b": image}, seed)["a"]
        assert (out.shape, out.dtype) == (image.shape, image.dtype)
        if format.dtype != "float32":
            kinds.add("same" if np.array_equal(out, image) else "flipped" if np.array_equal(out, image[:, ::-1]) else "bright")
        if format.alpha:
            assert np.array_equal(out[..., -1], image[..., -1]) or np.array_equal(out[..., -1], image[:, ::-1, -1])
    assert format.dtype == "float32" or {"same", "flipped"} <= kinds
    assert format.dtype == "float32" or ("bright" in kinds) is not format.labels


def test_floats_come_back_within_rounding(tmp_path: Path) -> None:
    format = ImageFormat(1, "float32", (-1000.0, 3000.0))
    (pipeline,) = made(write(tmp_path / "aug.yaml", A.HorizontalFlip(p=1)), formats=(format, format))
    image = noise(format)
    assert np.allclose(pipeline({"a": image, "b": image}, 0)["a"], image[:, ::-1], atol=4000 * 2 ** -22)


def test_what_is_given_is_not_written_into(tmp_path: Path) -> None:
    """Cached images are views of the cache."""
    (pipeline,) = made(write(tmp_path / "aug.yaml", A.CoarseDropout(p=1), A.PixelDropout(p=1), A.GridDropout(p=1), A.XYMasking(1, 1, 5, 5, p=1)))
    image = noise(COLOR)
    image.flags.writeable = False
    before = image.copy()
    out = pipeline({"a": image, "b": image}, 0)["a"]
    assert np.array_equal(image, before)
    assert not np.array_equal(out, before)


def test_sides_alone_and_the_direction(tmp_path: Path) -> None:
    path = write(tmp_path / "aug.yaml", A.InvertImg(p=1))
    image = noise(COLOR)
    for setting, direction, inverted in (("a_transforms", "ab", "a"), ("a_transforms", "ba", "b"), ("b_transforms", "ab", "b"), ("b_transforms", "ba", "a")):
        (pipeline,) = made(path, setting, direction=direction)
        assert equal({"a": image, "b": image, **pipeline({"a": image, "b": image}, 0)}, {"a": image, "b": image, inverted: 255 - image})


def test_a_larger_result_is_cropped_and_a_smaller_one_refused(tmp_path: Path) -> None:
    made(write(tmp_path / "aug.yaml", A.RandomResizedCrop((16, 24), p=1)))[0].check(SIZE)
    for transform in (A.Resize(12, 40, p=1), A.Transpose(p=0.5)):
        with pytest.raises(RequestError, match=r"aug\.yaml makes images of \d+x\d+; accepted: 24x16, the crop \(data\.size\), or more"):
            made(write(tmp_path / "aug.yaml", transform), crop=(16, 24))[0].check((16, 24) if isinstance(transform, A.Transpose) else SIZE)


# ------------------------------------------------------------------------------------------ in datasets

def folder(tmp_path: Path, *sides: str) -> Path:
    for side in sides:
        for i in range(6):
            (tmp_path / "data" / side).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(COLOR, (48, 48), seed=i)).save(tmp_path / "data" / side / f"{i}.png")
    return tmp_path / "data"


Find = Callable[..., Any]


@pytest.mark.parametrize(("find", "sides", "streams"), [(find_paired, ("trainA", "trainB"), ["ab"]), (find_unpaired, ("trainA", "trainB"), ["a", "b"]),
                                                        (find_images, ("x", "y"), ["b"])], ids=["paired", "unpaired", "images"])
def test_streams_are_functions_of_position_whatever_the_workers(tmp_path: Path, find: Find, sides: tuple[str, ...], streams: list[str]) -> None:
    path = write(tmp_path / "aug.yaml", A.Affine(rotate=(-30, 30), p=0.7), A.OneOf([A.GaussNoise(p=1), A.Blur(p=1), A.ColorJitter(p=1)], p=0.9))
    split = find(open_source(folder(tmp_path, *sides)))["train"]
    assert list(split.stream_sizes) == streams
    formats = (COLOR, COLOR)

    def dataset() -> Any:
        return split.for_training((32, 32), (36, 36), formats, seed=3, pipelines=made(path, streams=streams, formats=formats, crop=(32, 32)))
    first = [dataset().sample(position) for position in range(12)]
    backwards = dataset()
    assert all(equal(backwards.sample(position), first[position]) for position in reversed(range(12)))
    plain = split.for_training((32, 32), (36, 36), formats, seed=3)
    assert sum(equal(plain.sample(position), first[position]) for position in range(12)) < 3
    cached = dataset().with_cache("memory", (48, 48), 2**30, None)
    assert all(equal(cached.sample(position), first[position % 12]) for position in [*range(12), *range(12)])
    for workers in (0, 2):
        loaded = list(islice(batches(dataset(), start=4, batch_size=4, num_workers=workers, prefetch_factor=1), 2))
        for number, batch in enumerate(loaded):
            wanted = dataset().collate(first[4 + 4 * number:8 + 4 * number])
            assert all(torch.equal(batch[key], wanted[key]) for key in wanted)


def test_the_sides_of_unpaired_data_change_separately(tmp_path: Path) -> None:
    pipelines = made(write(tmp_path / "aug.yaml", A.HorizontalFlip(p=0.5)), streams=("a", "b"))
    assert [pipeline.keys for pipeline in pipelines] == ["a", "b"]
    made(write(tmp_path / "turn.yaml", A.Affine(rotate=30, p=1)), "a_transforms", streams=("a", "b"))[0].check(SIZE)      # Nothing has to follow.


def test_evaluation_and_grids_are_not_augmented(tmp_path: Path) -> None:
    split = find_paired(open_source(folder(tmp_path, "trainA", "trainB")))["train"]
    path = write(tmp_path / "aug.yaml", A.InvertImg(p=1))
    training = split.for_training((32, 32), (32, 32), (COLOR, COLOR), pipelines=made(path))
    assert equal(training.for_evaluation((COLOR, COLOR), (32, 32)).sample(0), split.for_evaluation((COLOR, COLOR), (32, 32)).sample(0))


def test_a_run_is_resumed_bit_for_bit_and_a_changed_pipeline_is_refused(tmp_path: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "aug.yaml", A.Affine(rotate=(-30, 30), p=0.7), A.RandomBrightnessContrast(p=0.7))
    folder(tmp_path, "trainA", "trainB")
    words = ("train", "pix2pix", *SMALL, "data.size=32", "train.batch_size=2", "train.checkpoint_every=8", "data.transforms=aug.yaml", "--data", "data")
    assert i2i(*words, "train.images=16", "--out", "whole").code == 0
    assert i2i(*words, "train.images=16", "--out", "plain", "data.transforms=").code == 0
    model, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "plain"))
    assert not all(torch.equal(model[key], plain[key]) for key in model)
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["data"]["pipelines"]["transforms"] == yaml.safe_load((tmp_path / "aug.yaml").read_text())
    (tmp_path / "whole" / "model.safetensors").unlink()
    for state in (tmp_path / "whole").rglob("*00000016*"):
        state.unlink()
    saved = (tmp_path / "aug.yaml").rename(tmp_path / "moved.yaml").read_text()       # The run has it.
    assert i2i("train", "--resume", "whole").code == 0
    resumed = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(model[key], resumed[key]) for key in model)
    (tmp_path / "aug.yaml").write_text(saved.replace("0.7", "0.6"))
    for again in (("train", "--resume", "whole"), (*words, "train.images=16", "--out", "whole")):
        result = i2i(*again)
        assert (result.code, "aug.yaml is not the pipeline that the run was started with" in result.err, result.err.count("\n")) == (2, True, 1)


def test_albumentations_is_not_imported_unasked() -> None:
    code = ("import sys, i2i.cli, i2i.training.train, i2i.data.pipeline\n"
            "assert 'albumentations' not in sys.modules, 'imported'")
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------ what is refused

def refused(path: Path, setting: str = "transforms", **options: Any) -> str:
    with pytest.raises(RequestError) as error:
        [pipeline.check(SIZE) for pipeline in made(path, setting, **options)]
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"data.{setting}={path}")
    return text


def compose(*transforms: Any, **options: Any) -> str:
    return json.dumps({"__version__": "1.3.1", "transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": list(transforms), **options}})


EVIL = "!!python/object/apply:os.system ['touch FILE']"
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(("text", "message"), [
    ("", "holds no pipeline; accepted: YAML or JSON that albumentations.save"), ("3", "holds no pipeline"), ("[]", "holds no pipeline"),
    ("transform: 3", "holds no pipeline"), ("{", "cannot be read"), ("\x00", "cannot be read"), (EVIL, "cannot be read"),
    ("transform: " + EVIL, "cannot be read"), (LAUGHS, "more than 10,000 values"), ("a: &a [*a]\n", "cannot be read"), ("transform: {a: 2020-01-01}", "cannot be read"),
    ("transform: {a: .nan}", "cannot be read"), (compose({"__class_fullname__": "HorizontalFlap"}), "did you mean 'HorizontalFlip'"),
    (compose({"__class_fullname__": "os.system", "command": "touch FILE"}), "there is no transform 'os.system'"),
    (compose({"__class_fullname__": "i2i.inference.integrations.Translate", "model": "x"}), "there is no transform"),
    (compose({"__class_fullname__": "Lambda", "__name__": "x"}), "except Lambda"), (compose({"__class_fullname__": "albumentations.core.Lambda"}), "except Lambda"),
    (compose({"__class_fullname__": "BasicTransform"}), "there is no transform"), (compose({"__class_fullname__": "ToTensorV2", "p": 1}), "ToTensorV2|makes \\d+ channels"),
    (compose({"__class_fullname__": "RandomRotate90", "factor": 1}), "RandomRotate90: .*factor"), (compose({"__class_fullname__": "MedianBlur", "blurlimit": 3}), "MedianBlur: .*blurlimit"),
    (compose({"__class_fullname__": "load"}), "there is no transform"), (compose({"p": 1}), "there is no transform ''"), (compose(3), "there is no transform ''"),
    (compose({"__class_fullname__": "HorizontalFlip", "always_apply": False}), "always_apply.*not valid.*written by albumentations 1.3.1, this is 2"),
    (compose({"__class_fullname__": "Blur", "blur_limit": "wide"}), "Blur: .*blur_limit"), (compose({"__class_fullname__": "OneOf"}), "OneOf has no list of transforms"),
    *((compose({"__class_fullname__": "HorizontalFlip", "p": p}), f"HorizontalFlip: p={p} cannot be used; accepted: 0 to 1") for p in (2, -0.5)),
    (compose({"__class_fullname__": "OneOf", "p": 5, "transforms": [{"__class_fullname__": "Blur"}]}), "OneOf: p=5 cannot be used; accepted: 0 to 1"),
    (compose({"__class_fullname__": "HorizontalFlip", "p": None}), "HorizontalFlip: p=None: Input should be a valid number"),
    (compose({"__class_fullname__": "Resize", "height": 10**5, "width": 40}), "height=100000 is larger than 16,384"),
    (compose({"__class_fullname__": "CoarseDropout", "num_holes_range": [1, 10**8]}), "num_holes_range=100000000 is larger than 16,384"),
    (compose({"__class_fullname__": "Resize", "height": 400, "width": 400, "p": 0.01}), "Resize makes images of 400x400; accepted: at most 64 times the pixels of the image"),
    (compose({"__class_fullname__": "SomeOf", "n": -1, "transforms": [{"__class_fullname__": "Blur"}]}), "SomeOf cannot be used for 3 channels of uint8: "),
    (compose({"__class_fullname__": "ImageOnlyTransform"}), "there is no transform 'ImageOnlyTransform'"),
    (compose({"__class_fullname__": "HorizontalFlip"}, bbox_params={"format": "coco"}), "bbox_params cannot be used: the images have no bounding boxes"),
    (compose({"__class_fullname__": "HorizontalFlip"}, keypoint_params={"format": "xy"}), "have no keypoints"),
    (compose({"__class_fullname__": "BBoxSafeRandomCrop", "p": 1}), "BBoxSafeRandomCrop cannot be used for 3 channels of uint8: it needs 'bboxes'"),
    (compose({"__class_fullname__": "OneOf", "p": 0.001, "transforms": [{"__class_fullname__": "HorizontalFlip"}, {"__class_fullname__": "MaskDropout"}]}),
     "MaskDropout cannot be used for .*mask"),
    (compose({"__class_fullname__": "OverlayElements"}), "OverlayElements cannot be used for .*overlay_metadata"), (compose({"__class_fullname__": "CubicSymmetry"}), "there is no transform 'CubicSymmetry'"),
    (compose({"__class_fullname__": "Normalize", "p": 1}), "makes 3 channels of float32 of 3 of uint8"),
    (compose({"__class_fullname__": "ToGray", "num_output_channels": 1, "p": 1}), "makes 1 channels of uint8 of 3 of uint8"),
    (compose({"__class_fullname__": "SelectiveChannelTransform", "transforms": []}), "there is no transform 'SelectiveChannelTransform'"),
])
def test_what_is_no_pipeline_for_these_images_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "aug.yaml"
    path.write_text(text.replace("FILE", str(tmp_path / "made")))
    assert re.search(message, refused(path)), refused(path)
    assert not (tmp_path / "made").exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "none.yaml")
    assert "cannot be read: not a regular file" in refused(tmp_path)
    (tmp_path / "big.yaml").write_text("a" * 2**21)
    assert "larger than 1,048,576 bytes" in refused(tmp_path / "big.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"\xe9")
    assert "cannot be read" in refused(tmp_path / "latin.yaml")


def test_transforms_for_other_channels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "aug.yaml", A.RandomFog(p=0.01))
    assert "RandomFog cannot be used for 1 channel of uint8 and 3 channels of uint8: " in refused(path, formats=(GRAY, COLOR))


@pytest.mark.filterwarnings("ignore:TimeReverse is an alias")
@pytest.mark.parametrize("transforms", [[A.OneOf([A.Blur(), A.Affine()])], [A.Crop(0, 0, 32, 32)], [A.TimeReverse()]], ids=["affine", "crop", "another-name-of-a-flip"])
def test_what_moves_one_side_of_a_pair_is_refused(tmp_path: Path, transforms: list[Any]) -> None:
    path = write(tmp_path / "aug.yaml", *transforms)
    assert "moves pixels, and the other side of a pair would not follow; accepted: in data.transforms" in refused(path, "a_transforms")
    made(write(tmp_path / "holes.yaml", A.CoarseDropout(p=1), A.GaussNoise()), "a_transforms")[0].check(SIZE)      # Inpainting.


def test_one_side_has_no_setting_of_its_own_where_there_are_not_two(tmp_path: Path) -> None:
    assert "the data have one side; accepted: data.transforms" in refused(write(tmp_path / "aug.yaml", A.Blur()), "b_transforms", streams=("b",))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_fails_later_ends_the_job_in_one_line(tmp_path: Path, workers: int) -> None:
    split = find_paired(open_source(folder(tmp_path, "trainA", "trainB")))["train"]
    path = write(tmp_path / "aug.yaml", A.Resize(20, 20, p=1))
    data = split.for_training((32, 32), (36, 36), (COLOR, COLOR), pipelines=made(path, crop=(32, 32)), on_error="skip")
    with pytest.raises(JobError, match=r"^data\.transforms=\S+aug\.yaml makes images of 20x20; accepted: 32x32, the crop \(data\.size\), or more$"):
        next(batches(data, start=0, batch_size=2, num_workers=workers))


def test_the_command_line_refuses_in_one_line(tmp_path: Path, i2i: Run) -> None:
    (tmp_path / "aug.yaml").write_text(EVIL)
    result = i2i("train", "pix2pix", f"data.transforms={tmp_path / 'aug.yaml'}", "--dry-run")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "Traceback" not in result.err


def test_summaries_do_not_depend_on_pipelines(tmp_path: Path) -> None:
    split = find_paired(open_source(folder(tmp_path, "trainA", "trainB")))["train"]
    assert inspect_dataset(split, DataConfig(transforms="aug.yaml")) == inspect_dataset(split)
