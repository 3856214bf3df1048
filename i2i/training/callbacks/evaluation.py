"""When a run is evaluated: as often, and on as many images, as its time allows."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from i2i.metrics import intervals
from i2i.runs import log
from i2i.training.callbacks.base import Callback
from i2i.training.callbacks.evaluator import MAX_IMAGES, MIN_IMAGES, Evaluator, format_scores
from i2i.training.trainer import Trainer

EVALUATION_SHARE, FREE_SECONDS = 0.1, 5.0       # Of the run's time; seconds that are always allowed.
TRIAL_IMAGES = 16               # By which the cost of an evaluation is measured.
PLANNED_EVALUATIONS = 3         # That are afforded: one on the way, the last, and that of the test images.


def seconds_for_evaluation(steps: float) -> float:
    """How long the evaluations of a run may take whose steps take so many seconds."""
    return max(EVALUATION_SHARE * steps, FREE_SECONDS)


def affordable_size(seconds: float, per_image: float) -> int:
    """How many images are evaluated, so that those evaluations that are planned take so many seconds."""
    return max(int(min(seconds / max(PLANNED_EVALUATIONS * per_image, 1e-9), MAX_IMAGES)), MIN_IMAGES)


def is_affordable(cost: float, spent: float, elapsed: float, budget: float) -> bool:
    """Whether an evaluation on the way leaves enough of the run's budget for the planned ones."""
    return spent + cost <= EVALUATION_SHARE * elapsed and spent + PLANNED_EVALUATIONS * cost <= budget


def evaluations(entries: Sequence[Mapping[str, Any]]) -> list[intervals.Evaluation]:
    """The lines of metrics.jsonl that can be compared with the last one image by image."""
    return [intervals.Evaluation(entry["images"], entry["each"]) for entry in entries
            if len(entry["each"]) == len(entries[-1]["each"])]


class EarlyStopping(Callback):
    """Ends a run as soon as its evaluations are as `train.stop_when` says, by the interval of the verdict."""

    def on_start(self, trainer: Trainer) -> None:
        self._check(trainer, log.read(trainer.folder.metrics))      # It may have been killed before it ended.

    def on_evaluation(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
        earlier = [each for each in log.read(trainer.folder.metrics) if each["images"] < entry["images"]]
        self._check(trainer, [*earlier, entry])

    def _check(self, trainer: Trainer, entries: Sequence[Mapping[str, Any]]) -> None:
        if not entries or entries[-1]["images"] != trainer.images or trainer.images >= trainer.total_images:
            return
        state, since = intervals.progress_state(evaluations(entries))
        if state == "worse" or state == trainer.config.stop_when:
            trainer.stop(f"{state} since image {since.images:,} by its evaluations", as_wished=True)


class Evaluation(Callback):
    """Evaluates at checkpoints if there is time for it, and at the end; keeps the best model.

    All evaluations of a run, and the best and worst pairs at its end, are to take at most a tenth of its
    time, or `FREE_SECONDS`.  A trial with a few images, before the first, says how many can be afforded.
    """

    def __init__(self, evaluator: Evaluator, clock: Callable[[], float] = time.perf_counter) -> None:
        self.evaluator, self.clock = evaluator, clock
        self.cost = 0.0         # Seconds of one evaluation; 0: not known.

    def on_start(self, trainer: Trainer) -> None:
        speeds, entries = log.read(trainer.folder.speed), log.read(trainer.folder.metrics)
        starts = [0, *(line["images"] for line in speeds)]
        self.start_time = self.clock() - sum(
            (line["images"] - start) / max(line["images_per_second"], 0.01)
            for line, start in zip(speeds, starts, strict=False))
        self.seconds = sum(entry["seconds"] for entry in entries)
        if entries:
            self.evaluator = self.evaluator.limited(entries[-1].get("limit", MAX_IMAGES))
            self.cost = entries[-1]["seconds"]

    def on_checkpoint(self, trainer: Trainer) -> None:
        entries = log.read(trainer.folder.metrics)
        if trainer.images and all(entry["images"] != trainer.images for entry in entries):
            self._evaluate(trainer, entries)

    def _budget(self, trainer: Trainer) -> float:
        """Seconds that evaluation may take in the whole run, by its speed so far."""
        return seconds_for_evaluation((self.clock() - self.start_time - self.seconds) * trainer.total_images
                                      / trainer.images)

    def _choose_size(self, trainer: Trainer) -> None:
        start, trial = self.clock(), self.evaluator.limited(TRIAL_IMAGES)
        trial.embedding()       # Reads its weights.
        began = self.clock()
        trial(trainer.modules, trainer.ema_modules, trainer.images)
        per_image = (self.clock() - began) / TRIAL_IMAGES
        self.seconds += self.clock() - start
        self.evaluator = self.evaluator.limited(affordable_size(self._budget(trainer) - self.seconds,
                                                                per_image))
        self.cost = per_image * len(self.evaluator.heldout.indices)

    def _evaluate(self, trainer: Trainer, entries: Sequence[dict[str, Any]]) -> None:
        if not self.cost and len(self.evaluator.heldout.indices) > TRIAL_IMAGES:
            trainer.unless_interrupted(lambda: self._choose_size(trainer))
        start, is_last = self.clock(), trainer.images == trainer.total_images
        if not is_last and not is_affordable(self.cost, self.seconds, start - self.start_time,
                                             self._budget(trainer)):
            return
        entry = trainer.unless_interrupted(
            lambda: self.evaluator(trainer.modules, trainer.ema_modules, trainer.images))
        if entry is None:
            return
        self.cost, metric = self.clock() - start, self.evaluator.metric
        self.seconds += self.cost
        before = [old["scores"][metric]["value"] for old in entries if metric in old["scores"]]
        if all(entry["scores"][metric]["value"] < value for value in before):
            trainer.state.save_model(trainer.folder.best, trainer.writer, entry["split"])
        entry = {**entry, "limit": self.evaluator.limit, "seconds": round(self.cost, 3)}
        # Last, so that the best model is there once its entry is.
        trainer.writer.submit(partial(log.append, trainer.folder.metrics, entry))
        trainer.callbacks.notify(lambda each: each.on_evaluation(trainer, entry))
        trainer.message(f"{format_scores(entry)}  ({entry['n']} images, {self.cost:.1f} s)")
