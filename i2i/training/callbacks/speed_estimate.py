"""The speed of a run, estimated before its first sample grid and its first step."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from i2i.recipes.base import Batch
from i2i.training.callbacks.base import Callback
from i2i.training.callbacks.progress import DAY
from i2i.training.flops import FlopCount

if TYPE_CHECKING:
    from i2i.training.trainer import Trainer

TRIALS = 4          # Of a batch, at most.
TRIAL_SECONDS = 4.0     # At most, about, for as many images of a batch as fit: a call has costs of its own.
SHORT_RUN = 60.0            # Seconds; shorter runs get no estimate.


class SpeedEstimate(Callback):
    """Says at the start about how long a run on a CPU takes, long before its first steps are made.

    Images are generated for a moment, and a step is taken to make as many operations per second.  That is
    within a factor of two or so: optimizers are not counted, and some networks run faster.

    Args:
        flops: operations of a step, in one process.
        sample: a batch from which images can be generated.
        clock: counts seconds.
    """

    def __init__(self, flops: int, sample: Batch, clock: Callable[[], float] = time.perf_counter) -> None:
        self.flops, self.sample, self.clock = flops, sample, clock

    def on_start(self, trainer: "Trainer") -> None:
        images = trainer.total_images - trainer.images
        # On a GPU, the first steps take a moment; compiling is not known beforehand.
        if trainer.device.type != "cpu" or trainer.config.compile or not images:
            return
        if rate := trainer.unless_interrupted(lambda: self._flops_per_second(trainer)):
            speed = trainer.config.batch_size * rate / max(self.flops, 1)
            if images / speed > SHORT_RUN:
                trainer.message(f"speed: about {speed:.2g} images/s, {approximate_duration(images / speed)} "
                                "left, estimated from that of the generators; measured after the first step")

    @torch.no_grad()
    def _flops_per_second(self, trainer: "Trainer") -> float:
        modules = trainer.ema_modules.eval()

        def trial(images: int) -> float:
            batch: dict[str, Tensor] = {key: value[:images] for key, value in self.sample.items()}
            with FlopCount() as count, trainer.runtime.autocast():
                start = self.clock()
                trainer.recipe.generate(modules, batch)
                return count.flops / max(self.clock() - start, 1e-9)

        start = self.clock()
        rate, seconds = trial(1), self.clock() - start      # Slower, by seconds on a busy machine.
        images = min(trainer.config.batch_size, max(1, int(TRIAL_SECONDS / max(seconds, 1e-9))))
        for _ in range(TRIALS):     # The first of a size is slower too.
            rate = max(rate, trial(images))
            if self.clock() - start > TRIAL_SECONDS:
                break
        return rate


def approximate_duration(seconds: float) -> str:
    """About 20 days, 3 hours or 8 minutes."""
    for unit, size in (("days", DAY), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
