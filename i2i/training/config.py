"""What may be set about training itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from i2i.errors import require

# Beyond what any machine has; processes and queues are made of them.
MAXIMA = {"batch_size": 2**20, "num_workers": 512, "prefetch_factor": 1024, "threads": 1024}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Intervals and lengths are counted in images.  `images` 0 is replaced by epochs times the size of the
    dataset."""

    images: int = 0                                 # Length of the run; 0: that of --epochs, by default 200.
    batch_size: int = 1                                  # Images per step, all processes together.
    # Of all that is random: first weights, order and variations of images, noise, dropout.
    seed: int = 0
    # fp16 is not offered: loss scaling and gradient penalties do not go together.
    precision: Literal["fp32", "bf16"] = "fp32"
    # On NVIDIA GPUs fp32 products keep 10 bits of 23: faster, and no longer fp32.
    tf32: bool = False
    # How images lie in memory: NCHW or NHWC.
    memory_format: Literal["contiguous", "channels-last"] = "contiguous"
    # Networks by torch.compile, but for those that are differentiated twice.
    compile: bool = False
    threads: int = 0                                # Of torch on a CPU; 0: as many as torch takes.
    # Images after which the average has forgotten half; 0 keeps no average.
    ema_half_life: int = 10_000
    # The half-life is at most this share of the images seen (Karras et al. 2020a, code).
    ema_ramp_up: float = 0.05
    # A line in log.jsonl: losses averaged over this many images.
    log_every: int = 1_000
    # A sample grid, a checkpoint and the model file.
    checkpoint_every: int = 10_000
    # Generators compute activations again in the backward pass and keep few: less memory, more time.
    gradient_checkpointing: bool = False
    collapse_every: int = 1_000                              # A look at whether the generator has collapsed.
    # When it has: say so, say so and stop, or do not look.
    on_collapse: Literal["warn", "stop", "off"] = "warn"
    keep_checkpoints: int = 2                                   # Training states kept.
    num_workers: int = 0                                # Loader processes; 0 reads in the training process.
    # Batches read ahead, by each loader process or by a thread; 0 (without processes): none.
    prefetch_factor: int = 2
    # For a GPU, batches wait in memory that it copies from while it computes.
    pin_memory: bool = True
    # Grids, states and models are written by a thread while training goes on.
    async_writes: bool = True
    # Steps in a row with non-finite gradients before the run stops.
    max_skips: int = 10

    def __post_init__(self) -> None:
        for key in ("batch_size", "log_every", "checkpoint_every", "collapse_every", "keep_checkpoints",
                    "max_skips"):
            require(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "1 or more")
        for key in ("images", "seed", "ema_half_life", "num_workers", "prefetch_factor", "threads"):
            require(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "0 or more")
        for key, most in MAXIMA.items():
            require(getattr(self, key) <= most, f"train.{key}", getattr(self, key), f"{most} or fewer")
        require(self.prefetch_factor >= 1 or not self.num_workers, "train.prefetch_factor",
                self.prefetch_factor, "1 or more, with loader processes (train.num_workers)")
        require(not (self.gradient_checkpointing and self.compile), "train.gradient_checkpointing", "true",
                "false, with train.compile=true, which has ways of its own")
        require(self.ema_ramp_up > 0, "train.ema_ramp_up", self.ema_ramp_up, "more than 0")

    @property
    def torch_memory_format(self) -> torch.memory_format:
        """`memory_format` as torch knows it."""
        return torch.channels_last if self.memory_format == "channels-last" else torch.contiguous_format

    @property
    def steps(self) -> int:
        """Steps in the run; the last one completes the images asked for."""
        return -(-self.images // self.batch_size)


# They change no number, so they may.
OPERATIONAL = ("num_workers", "prefetch_factor", "pin_memory", "async_writes", "keep_checkpoints",
               "gradient_checkpointing", "collapse_every", "on_collapse")
