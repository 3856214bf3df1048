"""What may be set about training itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from i2i.spec import require

MOST = {"batch": 2**20, "workers": 512, "prefetch": 1024, "threads": 1024}      # Beyond what any machine has; processes and queues are made of them.


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Intervals and lengths are counted in images.  `images` 0 is replaced by epochs times the size of the data set."""

    images: int = 0                                 # Length of the run; 0: that of --epochs, by default 200.
    batch: int = 1                                  # Images per step, all processes together.
    seed: int = 0                                   # Of all that is random: first weights, order and variations of images, noise, dropout.
    precision: Literal["fp32", "bf16"] = "fp32"     # fp16 is not offered: loss scaling and gradient penalties do not go together.
    tf32: bool = False                              # On NVIDIA GPUs fp32 products keep 10 bits of 23: faster, and no longer fp32.
    memory_format: Literal["contiguous", "channels-last"] = "contiguous"    # How images lie in memory: NCHW or NHWC.
    compile: bool = False                           # Networks by torch.compile, but for those that are differentiated twice.
    threads: int = 0                                # Of torch on a CPU; 0: as many as torch takes.
    ema_half_life: int = 10_000                     # Images after which the average has forgotten half; 0 keeps no average.
    ema_ramp_up: float = 0.05                       # The half-life is at most this share of the images seen (Karras et al. 2020a, code).
    log: int = 1_000                                # A line in log.jsonl: losses averaged over this many images.
    tick: int = 10_000                              # A sample grid, a checkpoint and the model file.
    recompute: bool = False                         # Generators compute activations again in the backward pass and keep few: less memory, more time.
    alarm: int = 1_000                              # A look at whether the generator has collapsed.
    on_collapse: Literal["warn", "stop", "off"] = "warn"    # When it has: say so, say so and stop, or do not look.
    keep: int = 2                                   # Training states kept.
    workers: int = 0                                # Loader processes; 0 reads in the training process.
    prefetch: int = 2                               # Batches read ahead, by each loader process or by a thread; 0 (without processes): none.
    pin: bool = True                                # For a GPU, batches wait in memory that it copies from while it computes.
    background: bool = True                         # Grids, states and models are written by a thread while training goes on.
    max_skips: int = 10                             # Steps in a row with non-finite gradients before the run stops.

    def __post_init__(self) -> None:
        for key in ("batch", "log", "tick", "alarm", "keep", "max_skips"):
            require(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "1 or more")
        for key in ("images", "seed", "ema_half_life", "workers", "prefetch", "threads"):
            require(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "0 or more")
        for key, most in MOST.items():
            require(getattr(self, key) <= most, f"train.{key}", getattr(self, key), f"{most} or fewer")
        require(self.prefetch >= 1 or not self.workers, "train.prefetch", self.prefetch, "1 or more, with loader processes (train.workers)")
        require(not (self.recompute and self.compile), "train.recompute", "true", "false, with train.compile=true, which has ways of its own")
        require(self.ema_ramp_up > 0, "train.ema_ramp_up", self.ema_ramp_up, "more than 0")

    @property
    def steps(self) -> int:
        """Steps in the run; the last one completes the images asked for."""
        return -(-self.images // self.batch)


OPERATIONAL = ("workers", "prefetch", "pin", "background", "keep", "recompute", "alarm", "on_collapse")    # They change no number, so they may.
