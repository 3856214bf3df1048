"""Albumentations pipelines that users supply for the augmentation of training images.

Albumentations is imported when the first pipeline is built, not before.
"""

import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from i2i.data.config import DataConfig
from i2i.data.transforms import Size
from i2i.errors import JobError, RequestError
from i2i.images.format import Array, ImageFormat, num_channels, round_to
from i2i.registry import suggest

SETTINGS = {"transforms": "ab", "a_transforms": "a", "b_transforms": "b"}   # Setting -> sides.
COMPOSITIONS = ("Compose", "Sequential", "OneOf", "OneOrOther", "SomeOf", "RandomOrder")
TARGETS = {"bbox_params": "bounding boxes", "keypoint_params": "keypoints"}     # That images do not have.
MAX_BYTES = 2**20           # Of a file.
MAX_VALUES = 10_000         # Values in a file, with those that YAML's aliases repeat.
MAX_NUMBER = 2**14          # Larger arguments, such as heights, take memory or minutes for each image.
MAX_ENLARGEMENT = 64        # Pixels of a result by those of the image.
MOVING = {"geometric", "crops", "mixing"}       # Packages of albumentations whose transforms move pixels.
TRIALS = 8

Content = Mapping[str, Any]     # Setting -> what the file holds.


def read_pipelines(config: DataConfig, recorded: Content | None = None) -> dict[str, Any]:
    """The contents of the files that data.transforms and its like name, by setting.

    Args:
        config: the settings.
        recorded: contents that must not have changed; they serve where a file is gone.

    Raises:
        RequestError: if a file cannot be read, does not hold a pipeline, or has changed.
    """
    contents: dict[str, Any] = {}
    for setting in SETTINGS:
        path = getattr(config, setting)
        if not path:
            continue
        if recorded and setting in recorded and not Path(path).exists():
            contents[setting] = recorded[setting]
            continue
        contents[setting] = _read_file(f"data.{setting}={path}", Path(path))
        if recorded is not None and contents[setting] != recorded.get(setting):
            raise RequestError(f"data.{setting}={path} is not the pipeline that the run was started with; "
                               "restore it (config.json holds it) to resume")
    return contents


def _read_file(where: str, path: Path) -> Any:
    accepted = "accepted: YAML or JSON that albumentations.save(pipeline, FILE, data_format=…) wrote"
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a regular file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        text = path.read_text("utf-8-sig")
        data = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
        count = 0

        def plain(value: Any, name: str = "") -> Any:
            nonlocal count
            count += 1
            if count > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES:,} values")
            if isinstance(value, int | float) and abs(value) > MAX_NUMBER and name != "seed":
                raise ValueError(f"{name}={value} is larger than {MAX_NUMBER:,}")
            if isinstance(value, dict):
                return {str(key): plain(each, key) for key, each in value.items()}
            return [plain(each, name) for each in value] if isinstance(value, list) else value

        content = plain(data)
        json.dumps(content, allow_nan=False)        # Dates, sets and bytes are no arguments.
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else _reason(error)
        raise RequestError(f"{where} cannot be read: {reason}; {accepted}") from None
    if not isinstance(content, dict) or not isinstance(content.get("transform"), dict):
        raise RequestError(f"{where} holds no pipeline; {accepted}")
    return content


def _reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = f"it needs {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    if wrong := getattr(error.__cause__, "errors", None):       # Pydantic's, one for each argument.
        text = "; ".join(f"{each['loc'][0]}={each['input']!r}: {each['msg']}" for each in wrong())
    return " ".join(text.split())[:200]


@dataclass(frozen=True)
class Pipeline:
    """A pipeline for some images of a sample, which it changes alike.

    Label maps are albumentations' masks: they move with the images and keep their values.  So does alpha.
    Images of 16 bits or floats are given to the transforms as float32 in [0, 1].

    Args:
        setting: data.transforms=FILE, for messages.
        content: what the file holds.
        keys: of the images that it changes: "a", "b" or "ab".
        others: keys of images of the same sample that must not move against these.
        formats: of the images "a" and "b".
        crop: size that results must have at least.
    """

    setting: str
    content: Any
    keys: str
    others: str
    formats: tuple[ImageFormat, ImageFormat]
    crop: Size

    @cached_property
    def names(self) -> dict[str, str]:
        """Albumentations' names of the images by their keys."""
        names: dict[str, str] = {}
        for key in self.keys:
            kind = "mask" if self._format(key).labels else "image"
            names[key] = kind if kind not in names.values() else f"{kind}_{key}"
        return names

    @cached_property
    def compose(self) -> Any:
        """The pipeline, built.  RequestError if it cannot be used for these images."""
        import albumentations
        targets = {name: name.split("_")[0] for name in self.names.values() if "_" in name}
        targets |= {f"alpha_{key}": "mask" for key in self.keys if self._format(key).alpha}
        return albumentations.Compose([self._build(self.content["transform"])], additional_targets=targets)

    def _build(self, data: Any) -> Any:
        """A transform of a file.  Only transforms of albumentations by name: nothing is imported or run."""
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")      # Its check would use the network.
        import albumentations
        name = str(data.get("__class_fullname__", "")) if isinstance(data, dict) else ""
        short = name.rpartition(".")[2] if name.startswith("albumentations.") else name
        known = sorted(each for each, item in vars(albumentations).items()
                       if each not in ("Lambda", "ImageOnlyTransform") and isinstance(item, type)
                       and issubclass(item, albumentations.BasicTransform)
                       and "Targets.IMAGE" in str(getattr(item, "_targets", "")))
        if short not in (*known, *COMPOSITIONS):
            raise self._refusal(None, f"there is no transform {name[:100]!r} that a file may name; "
                                + suggest(short, [*known, *COMPOSITIONS], COMPOSITIONS)
                                + " and the transforms of albumentations except Lambda")
        options = {key: value for key, value in data.items() if key != "__class_fullname__"}
        for key in TARGETS.keys() & options.keys():
            if options.pop(key):
                raise self._refusal(None, f"{key} cannot be used: the images have no {TARGETS[key]}")
        if short in COMPOSITIONS:
            if not isinstance(options.get("transforms"), list):
                raise self._refusal(None, f"{short} has no list of transforms")
            options["transforms"] = list(map(self._build, options["transforms"]))
            options.pop("additional_targets", None)
        if isinstance(p := options.get("p", 1), int | float) and not 0 <= p <= 1:   # Some take others.
            raise self._refusal(None, f"{short}: p={p} cannot be used; accepted: 0 to 1")
        transform = getattr(albumentations, short)
        owner = next(base for base in transform.__mro__ if "__init__" in vars(base))
        if "InitSchema" in vars(owner):
            options["strict"] = True        # Unknown arguments are errors; for others Python says so.
        try:
            return transform(**options)
        except Exception as error:      # Whatever a constructor of theirs raises.
            here = albumentations.__version__
            written = self.content.get("__version__", here)
            versions = f" (written by albumentations {written}, this is {here})" if written != here else ""
            raise self._refusal(None, f"{short}: {_reason(error)}{versions}") from None

    def _refusal(self, transform: Any, reason: str) -> RequestError:
        return RequestError(f"{self.setting}: {type(transform).__name__ + ' ' if transform else ''}{reason}")

    def _format(self, key: str) -> ImageFormat:
        return self.formats["ab".index(key)]

    def __call__(self, images: Mapping[str, Array], seed: int) -> dict[str, Array]:
        """The changed images of a sample, a function of the seed.  JobError if that fails."""
        # `set_random_seed` would give each transform the same numbers.
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        try:
            results = self.compose(**self._targets(images))
            changed = {key: self._restore(key, results) for key in self.keys}
        except Exception as error:      # Whatever a transform of theirs raises.
            raise JobError(f"{self.setting}: {_reason(error)}") from None
        for key, image in changed.items():
            shape = image.shape[:2]
            if num_channels(image) != num_channels(images[key]) or image.dtype != images[key].dtype:
                raise JobError(f"{self.setting} makes {num_channels(image)} channels of {image.dtype} of "
                               f"{num_channels(images[key])} of {images[key].dtype}; accepted: transforms "
                               "that keep both (images are normalized afterwards)")
            if shape[0] < self.crop[0] or shape[1] < self.crop[1]:
                raise JobError(f"{self.setting} makes images of {shape[1]}x{shape[0]}; accepted: "
                               f"{self.crop[1]}x{self.crop[0]}, the crop (data.size), or more")
        return changed

    def _targets(self, images: Mapping[str, Array]) -> dict[str, Array]:
        targets: dict[str, Array] = {}
        for key in self.keys:
            image, format = images[key], self._format(key)
            if format.alpha:
                targets[f"alpha_{key}"], image = image[..., -1].copy(), image[..., :-1]
                image = image[..., 0] if format.colors == 1 else image
            if image.dtype == np.uint8 or format.labels:
                targets[self.names[key]] = image.copy()     # Transforms may write into it.
            else:
                low, high = format.limits
                targets[self.names[key]] = ((image - low) / (high - low)).astype(np.float32)
        if "image" not in targets:      # Albumentations needs one, if only for its size.
            targets["image"] = np.zeros(next(iter(targets.values())).shape[:2], np.uint8)
        return targets

    def _restore(self, key: str, results: Mapping[str, Any]) -> Array:
        image, format = np.asarray(results[self.names[key]]), self._format(key)
        if not (format.dtype == "uint8" or format.labels) and image.dtype == np.float32:
            low, high = format.limits
            values = image * (high - low) + low
            image = round_to(values if format.dtype == "float32" else values.clip(0, 65535), format.dtype)
        return np.dstack([image, results[f"alpha_{key}"]]) if format.alpha else image

    def check(self, size: Size) -> None:
        """Try the pipeline on images of this size.  RequestError if a transform cannot be used for them."""
        noise = np.random.default_rng(0)
        images: dict[str, Array] = {}
        for key in self.keys:
            format = self._format(key)
            low, high = format.limits
            shape = size if format.channels == 1 else (*size, format.channels)
            images[key] = round_to(noise.uniform(low, high, shape), format.dtype)
        self._try(self.compose, self._targets(images), MAX_ENLARGEMENT * size[0] * size[1])
        try:
            for seed in range(TRIALS):
                self(images, seed)
        except JobError as error:
            raise RequestError(str(error)) from None

    def _try(self, transform: Any, targets: dict[str, Any], max_pixels: int) -> dict[str, Any]:
        """Apply all transforms once, those that are chosen by chance too."""
        import albumentations
        results, sequential = targets, type(transform).__name__ in ("Compose", "Sequential")
        for each in transform.transforms if isinstance(transform, albumentations.BaseCompose) else ():
            results = self._try(each, results if sequential else targets, max_pixels)
        if sequential:
            return results
        if self.others and any(MOVING & {*base.__module__.split(".")} for base in type(transform).__mro__):
            raise self._refusal(transform, "moves pixels, and the other side of a pair would not follow; "
                                           "accepted: in data.transforms, which changes both")
        try:
            results = transform(force_apply=True, **targets)
        except Exception as error:      # Whatever a transform of theirs raises.
            formats = " and ".join(dict.fromkeys(str(self._format(key)) for key in self.keys))
            raise self._refusal(transform, f"cannot be used for {formats}: {_reason(error)}") from None
        height, width = np.shape(results["image"])[:2]
        if height * width > max_pixels:
            raise self._refusal(transform, f"makes images of {width}x{height}; accepted: at most "
                                           f"{MAX_ENLARGEMENT} times the pixels of the image")
        return results


def make_pipelines(contents: Content, config: DataConfig, streams: Sequence[str],
                   formats: tuple[ImageFormat, ImageFormat], crop: Size) -> tuple[Pipeline, ...]:
    """The pipelines for the samples of a dataset.

    Args:
        contents: see `read_pipelines`.
        config: the settings.
        streams: the keys of images that are changed alike: ["ab"] for pairs.
        formats: of the images "a" and "b".
        crop: size that results must have at least.
    """
    pipelines = []
    for setting, content in contents.items():
        where = f"data.{setting}={getattr(config, setting)}"
        if setting != "transforms" and not any("a" in keys for keys in streams):
            raise RequestError(f"{where} cannot be used: the data have one side; accepted: data.transforms")
        sides = "ab" if config.direction == "ab" else "ba"      # Of the images a and b.
        wanted = [key for key, side in zip("ab", sides, strict=True) if side in SETTINGS[setting]]
        for keys in streams:
            if chosen := "".join(key for key in keys if key in wanted):
                pipelines.append(Pipeline(where, content, chosen, keys.replace(chosen, ""), formats, crop))
    return tuple(pipelines)
