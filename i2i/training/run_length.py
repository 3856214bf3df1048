"""How many images a run by the clock is long, from what its parts take."""

from dataclasses import dataclass

from i2i.training.callbacks.evaluation import (
    TRIAL_IMAGES,
    affordable_size,
    is_affordable,
    seconds_for_evaluation,
)

CHECKPOINTS = 8                 # Of a run, beside the one at its start.
RESERVE = 0.03                  # Of the time: collapse detector, log lines, report.
SAVED_BYTES_PER_SECOND = 2e8


@dataclass(frozen=True)
class Timing:
    """Seconds that the parts of a run take."""

    image: float        # A training image, with all that a step does.
    decoding: float     # What it takes longer in the first epoch, where images are not cached yet,
    epoch: int          # of so many images.
    grid: float         # A sample grid.
    embedding: float    # Loading the network that sets are compared by.
    trial: float        # The evaluation of TRIAL_IMAGES that decides how many images are evaluated,
    evaluated: int      # of so many.

    def steps(self, images: int) -> float:
        """Of a run of so many images, the steps."""
        return images * self.image + min(images, self.epoch) * self.decoding


def evaluation_seconds(timing: Timing, steps: float, checkpoints: int) -> float:
    """Seconds of all evaluations of a run whose steps take so many, by the rules of `Evaluation`."""
    if not timing.evaluated:
        return 0.0
    budget, per_image = seconds_for_evaluation(steps), timing.trial / TRIAL_IMAGES
    count, spent = timing.evaluated, 0.0
    if count > TRIAL_IMAGES:
        spent = timing.embedding + timing.trial
        count = min(count, affordable_size(budget - spent, per_image))
    cost = count * per_image
    for checkpoint in range(1, checkpoints):
        if is_affordable(cost, spent, steps * checkpoint / checkpoints + spent, budget):
            spent += cost
    return spent + 2 * cost         # The last, and that of the test images.


def seconds_beside_steps(timing: Timing, steps: float, checkpoints: int, state: int) -> float:
    """Seconds of sample grids, states and evaluations of a run whose steps take so many."""
    each = timing.grid + state / SAVED_BYTES_PER_SECOND
    return (checkpoints + 1) * each + evaluation_seconds(timing, steps, checkpoints)


def affordable_images(timing: Timing, seconds: float, checkpoint_every: int, state: int) -> int:
    """How many images fit into so many seconds; with CHECKPOINTS, or with one every so many images."""
    low, high = 0, int(seconds / max(timing.image, 1e-9)) + 1
    while high - low > 1:
        images = (low + high) // 2
        checkpoints = -(-images // checkpoint_every) if checkpoint_every else CHECKPOINTS
        steps = timing.steps(images)
        total = (steps + seconds_beside_steps(timing, steps, checkpoints, state)) * (1 + RESERVE)
        low, high = (images, high) if total <= seconds else (low, images)
    return low


def round_down(images: int, batch: int) -> int:
    """A multiple of the batch of about three digits."""
    unit = 10 ** max(0, len(str(images)) - 3)
    return max(batch, images // unit * unit // batch * batch)
