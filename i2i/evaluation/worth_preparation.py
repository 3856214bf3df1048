"""What `i2i worth` compares, before and after fakes are made, and the plan in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2i.data.labeled import ImageDataset, find_images
from i2i.data.sources import open_source
from i2i.errors import RequestError
from i2i.evaluation.request import Progress
from i2i.evaluation.worth_fakes import FakeRequest, open_fakes
from i2i.evaluation.worth_sets import (
    MIN_IMAGES,
    LabeledImages,
    check_numbers,
    choose_labeled,
    class_names,
    default_size,
    hold_out,
    read_labeled,
    without_test_images,
)
from i2i.evaluation.worth_trainings import Comparison, Sets, seconds_per_training
from i2i.inference.model import Model


class Preparation:
    """The real images, and what is known of the fakes before they are made."""

    def __init__(self, real: str, test: str | None, request: FakeRequest, model: Model | None, *,
                 size: int | None = None, progress: Progress = lambda stage, done, total: None) -> None:
        self.request, self.model, self.progress, self.warnings = request, model, progress, list[str]()
        splits = find_images(open_source(real, max_pixels=request.max_pixels))
        train = choose_labeled(splits, ("train",), real, "--real")
        if train is None:
            raise RequestError(f"--real {real} has no training images; accepted: a folder of class folders, "
                               "or one with train/")
        others = choose_labeled(splits, ("test", "val"), real, "--real") if test is None else choose_labeled(
            find_images(open_source(test, max_pixels=request.max_pixels)), ("test", "val", "train"), test,
            "--test")
        self.classes = class_names(train)
        self.size = size or default_size(train, *filter(None, [others]))
        self.real = self._read(train, "--real", "real")
        if others is None:
            self.real, self.test = hold_out(self.real, request.seed)
            self.warnings.append(f"--real {real} has no test images: {len(self.test):,} of it, a quarter of "
                                 "each class, are held out; the fakes must not come from them")
        else:
            self.test = self._read(others, "--test", "test")
        request.check_unseen(model, self.test.paths)
        check_numbers("--test", self.test, self.classes)
        notes = list[str]()
        self.real = without_test_images(self.real, self.test, "training images", notes.append)
        if notes and len(self.real) < MIN_IMAGES:
            raise RequestError(f"{notes[0]}, {len(self.real)} are left, and {MIN_IMAGES} are needed")
        self.warnings += notes
        check_numbers("--real", self.real, self.classes)

    def _read(self, images: ImageDataset, option: str, stage: str) -> LabeledImages:
        return read_labeled(images, option, self.classes, self.size,
                            lambda done: self.progress(stage, done, len(images)))

    def plan(self, comparison: Comparison) -> dict[str, Any]:
        """What will be done, and the minutes it takes, as figures."""
        schedule = comparison.schedule
        count = comparison.count(self.request.source is not None)
        minutes = count / 60 * seconds_per_training(self.real, self.test, len(self.classes), schedule)
        generated = self.request.number(len(self.real), float(max(comparison.ratios)))
        return {"trainings": count, "updates": schedule.updates, "batch_size": schedule.batch_size,
                "size": self.size, "real": len(self.real), "classes": len(self.classes),
                "test": len(self.test), "minutes": max(0.1, minutes), "device": schedule.device,
                "generated": generated if self.model is not None and self.request.task == "classify" else 0,
                "translated": self.model is not None and self.request.task == "translate"}

    def sets(self, ratio: float, folder: Path) -> Sets:
        """All sets; makes the fakes."""
        fakes, sources = open_fakes(self.request, self.model, self.real, self.classes, ratio, folder,
                                    self.progress)
        read = [without_test_images(self._read(images, f"--{option}", option), self.test, f"{option}s",
                                    self.warnings.append)
                for images, option in ((fakes, "fake"), (sources, "source")) if images is not None]
        return Sets(self.real, self.test, read[0], read[1] if sources else None, self.classes)


def describe_plan(plan: Mapping[str, Any]) -> str:
    """The plan in words."""
    made = f"; before, {plan['generated']:,} images are generated" if plan["generated"] else (
        "; before, the sources are translated" * plan["translated"])
    return ("plan: up to {trainings:,} trainings of {updates:,} updates of {batch_size} images of "
            "{size}x{size}, on {real:,} real images of {classes} classes, tested on {test:,}: about "
            "{minutes:.1f} minutes on {device}".format(**plan) + made)
