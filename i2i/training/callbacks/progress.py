"""Progress of a run: how fast it is, how long it takes, a note if that is an hour or more than planned."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from i2i.training.callbacks.base import Callback

if TYPE_CHECKING:
    from i2i.training.trainer import Trainer

FIRST_LINE = 5.0            # Seconds of training, or one step, before the first line about speed.
INTERVAL_GROWTH = 0.2       # Of the time so far is the interval between two lines,
MIN_INTERVAL, MAX_INTERVAL = 10.0, 600.0        # within these limits in seconds.
HIDDEN_METRICS = ("grad_norm_", "real_logits", "fake_logits")       # In log.jsonl, but not on the screen.
PACE_INTERVAL, MAX_LATE = 0.02, 0.1     # Of the time of a run by the clock: between checks; reported.
HOUR, DAY = 3_600, 86_400


class _Timed(Callback):
    """Knows the speed of the steps, since the first checkpoint of this process; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock

    def on_start(self, trainer: "Trainer") -> None:
        self.start_time, self.start_images = self.clock(), trainer.images
        self.next_time = self.start_time + FIRST_LINE

    def on_checkpoint(self, trainer: "Trainer") -> None:
        if trainer.images == self.start_images:
            self.on_start(trainer)

    def speed(self, trainer: "Trainer") -> float:
        """Images per second."""
        return (trainer.images - self.start_images) / max(self.clock() - self.start_time, 1e-9)


class ProgressLines(_Timed):
    """Prints images, speed, time left and losses: early, at growing intervals of time, and at the end."""

    def on_start(self, trainer: "Trainer") -> None:
        super().on_start(trainer)
        self.logs: Mapping[str, float] = {}

    def on_step(self, trainer: "Trainer", logs: Mapping[str, float] | None) -> None:
        self.logs, now = logs or self.logs, self.clock()
        if now >= self.next_time or trainer.images >= trainer.total_images:
            interval = INTERVAL_GROWTH * (now - self.start_time)
            self.next_time = now + min(max(interval, MIN_INTERVAL), MAX_INTERVAL)
            speed = self.speed(trainer)
            left = format_duration((trainer.total_images - trainer.images) / speed)
            print(f"{trainer.images:,}/{trainer.total_images:,} images  {speed:.3g} images/s  {left} left  "
                  f"{format_losses(self.logs)}".rstrip(), flush=True)

    def on_message(self, message: str) -> None:
        print(message, flush=True)


class LongRunNote(_Timed):
    """Warns early if a run will take more than an hour, with a command line that takes one."""

    def __init__(self, fitting_line: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self.fitting_line = fitting_line

    def on_step(self, trainer: "Trainer", logs: Mapping[str, float] | None) -> None:
        if self.clock() < self.next_time:
            return
        self.next_time, speed = float("inf"), self.speed(trainer)
        seconds = (trainer.total_images - trainer.images) / speed
        if seconds > HOUR:
            trainer.message(f"note: at {speed:.2g} images/s the run takes {format_duration(seconds)} more; "
                            f"one that takes an hour here: {self.fitting_line()}")


class PaceNote(Callback):
    """Says when a run by the clock turns out slower or faster than measured, so that it misses its time.

    Args:
        time_plan: the limit in minutes, images per second and what decoding adds in the first epoch.
        epoch: images.
        clock: counts seconds.
    """

    def __init__(self, time_plan: Mapping[str, Any], epoch: int,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, measured = 60 * float(time_plan["limit"]), time_plan["measured"]
        self.image = 1 / float(measured["images_per_second"])       # Seconds.
        self.epoch, self.decoding = epoch, float(measured.get("decoding_seconds", 0)) / epoch
        self.interval = max(FIRST_LINE, PACE_INTERVAL * self.limit)
        self.clock, self.late = clock, 0.0      # Seconds behind the plan so far,
        self.before = self.reported = 0.0       # and expected at the end: in the last check, last reported.

    def on_start(self, trainer: "Trainer") -> None:
        self.images, self.seconds, self.last_time = trainer.images, 0.0, self.clock()

    def on_checkpoint(self, trainer: "Trainer") -> None:
        self.last_time = self.clock()       # Steps are timed, and nothing else.

    def on_step(self, trainer: "Trainer", logs: Mapping[str, float] | None) -> None:
        now = self.clock()
        self.seconds, self.last_time = self.seconds + now - self.last_time, now
        if self.seconds < self.interval:
            return
        images = trainer.images - self.images
        planned = self.image + (self.decoding if trainer.images <= self.epoch else 0.0)
        slower = self.seconds / images - planned
        self.late += images * slower
        self.images, self.seconds = trainer.images, 0.0
        late = self.late + (trainer.total_images - trainer.images) * slower
        if min(abs(late - self.reported), abs(self.before - self.reported)) > MAX_LATE * self.limit:
            self.reported, when = late, "after" if late > 0 else "before"
            trainer.message(f"note: {1 / (planned + slower):.3g} images/s instead of the {1 / planned:.3g} "
                            "that were measured before: the run ends about "
                            f"{format_duration(abs(late))} {when} its time is up")
        self.before = late


def format_duration(seconds: float) -> str:
    """0:01:30, or 2 days 3:04:05."""
    days, rest = divmod(int(seconds), DAY)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} day{'s' * (days > 1)} {clock}" if days else clock


def format_losses(logs: Mapping[str, float]) -> str:
    """The losses worth following."""
    return "  ".join(f"{key} {value:.4g}" for key, value in logs.items()
                     if not key.startswith(HIDDEN_METRICS))
