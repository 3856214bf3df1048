"""The fakes of `i2i worth`: a labeled set, what a model makes, or translations of labeled sources."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from i2i import registry
from i2i.data.labeled import ImageDataset
from i2i.data.sources import open_source
from i2i.errors import JobError, RequestError
from i2i.evaluation.request import Progress
from i2i.evaluation.worth_sets import LABELED, LabeledImages, check_classes, open_labeled
from i2i.images.encode import formats_for
from i2i.inference import translate as translation
from i2i.inference.generate import generate_set
from i2i.inference.generation_plan import plan_generation
from i2i.inference.model import Model, load
from i2i.inference.model_file import is_model

MOST_GENERATED = 20_000
FAKES, TRANSLATED = "fakes", "translated"       # Folders in --out.


@dataclass(frozen=True)
class FakeRequest:
    """Where fakes come from."""

    fake: str
    task: str = "classify"
    source: str | None = None       # Labeled images that are translated.
    direction: str = "ab"
    n: int | None = None            # How many a model makes.
    seed: int = 0
    device: str = "auto"
    max_pixels: int | None = None

    def open_model(self) -> Model | None:
        """The model, if there is one; RequestError if it is of the wrong kind for the task."""
        if self.task not in ("classify", "translate"):
            raise RequestError(f"--task {self.task} is not known; accepted: classify or translate")
        if self.source and self.task == "classify":
            raise RequestError(f"--source {self.source} is for --task translate")
        if self.n is not None and (self.task == "translate" or not is_model(self.fake)):
            raise RequestError(f"--n {self.n} is for a --fake MODEL that makes images from noise")
        if not is_model(self.fake):
            return None
        model = load(self.fake, self.device)
        name = model.header["recipe"]["name"]
        if self.task == "translate":
            model.sides(self.direction)
            if not self.source:
                raise RequestError(f"--fake {self.fake} translates images; --source DATA says which labeled "
                                   "ones")
        elif model.recipe.sources:
            raise RequestError(f"--fake {self.fake} ({name}) translates images; accepted: --task translate "
                               "--source DATA, or a model that makes images from noise and classes")
        elif not model.classes:
            raise RequestError(f"--fake {self.fake} ({name}) was trained without labels, and labels of its "
                               "images are needed; accepted: a model trained with conditional=true, or "
                               f"{LABELED}")
        return model

    def check_unseen(self, model: Model | None, test: Sequence[str]) -> None:
        """RequestError if test images, given by their paths, are known to have trained the model."""
        learned = _training_files(model) if model else set()
        if seen := [path for path in test if os.path.realpath(path) in learned]:
            raise RequestError(f"--fake {self.fake} was trained on {len(seen):,} of {len(test):,} test "
                               f"images, such as {seen[0]}; accepted: --test DATA of images that it has not "
                               "seen")

    def number(self, real: int, ratio: float) -> int:
        """How many images a model makes: as many as the largest ratio takes, at most MOST_GENERATED."""
        return self.n or min(round(real * ratio), MOST_GENERATED)


def _training_files(model: Model) -> set[str]:
    """The paths, without links, of the images that a model was trained on; none if these are not found."""
    try:
        source = open_source(model.header.get("data", ""))
        train = registry.build("dataset", registry.Spec(model.recipe.dataset), source)["train"]
    except (RequestError, JobError, KeyError):
        return set()
    return {os.path.realpath(train.source.path_of(file)) for keys, count in train.stream_sizes.items()
            for i in range(count) for file in train.files(keys, i)}


def open_fakes(request: FakeRequest, model: Model | None, real: LabeledImages, classes: Sequence[str],
               ratio: float, out: Path, progress: Progress) -> tuple[ImageDataset, ImageDataset | None]:
    """The fakes, and the sources they were translated from; what a model makes is kept in `out`."""
    sources = None
    if request.source:
        sources = open_labeled(request.source, "--source", request.max_pixels)
        check_classes("--source", sources.learned_classes, classes)
    if model is None:
        return open_labeled(request.fake, "--fake", request.max_pixels), sources
    if sources is not None:
        return _translate(request, model, sources, out / TRANSLATED, progress), sources
    check_classes(f"--fake {request.fake}", [model.classes[i] for i in model.learned_classes], classes)
    return _generate(request, model, real, classes, ratio, out / FAKES, progress), None


def _generate(request: FakeRequest, model: Model, real: LabeledImages, classes: Sequence[str], ratio: float,
              folder: Path, progress: Progress) -> ImageDataset:
    """Images whose classes are as frequent as those of the real ones."""
    count = request.number(len(real), ratio)
    order = np.random.default_rng(request.seed).permutation(len(real))
    turn = tuple(model.class_number(classes[number]) for number in real.labels[order])
    plan = replace(plan_generation(request.fake, model, seed=request.seed), turn=turn)
    generate_set(model, plan, folder, count,
                 progress=lambda each: progress("generated", each.done + each.skipped, count))
    return open_labeled(str(folder), "--fake")


def _translate(request: FakeRequest, model: Model, sources: ImageDataset, folder: Path,
               progress: Progress) -> ImageDataset:
    """Translations under the names of their sources, with the labels of these."""
    suffix = "." + formats_for(model.formats[model.sides(request.direction)[1]])[0]
    report: Any = translation.translate(
        model, sources.source, folder, direction=request.direction, skip_existing=True, suffix=suffix,
        progress=lambda each, total: progress("translated", each.done + each.skipped, total))
    if report.failed:
        raise JobError(f"{len(report.failed)} sources could not be translated, such as {report.failed[0]}")
    names = [str(PurePosixPath(name).with_suffix(suffix)) for name in sources.names]
    return replace(sources, source=open_source(folder), names=names)
