"""Settings of training: what `train.KEY=VALUE` sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from i2i.errors import require

# Beyond what any machine has; processes and queues are made of them.
MAXIMA = {"batch_size": 2**20, "num_workers": 512, "prefetch_factor": 1024, "threads": 1024}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of training.  Lengths and intervals are counted in images."""

    images: int = 0             # Length of the run; 0: that of --epochs, by default 200.
    batch_size: int = 1         # Images per step, all processes together.
    seed: int = 0               # Of initial weights, order and crops of images, noise, dropout.
    # fp16 is not offered: loss scaling does not go together with gradient penalties.
    precision: Literal["fp32", "bf16"] = "fp32"
    # On NVIDIA GPUs, fp32 products keep 10 bits of 23: faster, but no longer fp32.
    tf32: bool = False
    memory_format: Literal["contiguous", "channels-last"] = "contiguous"   # NCHW or NHWC in memory.
    compile: bool = False       # Use torch.compile for networks that are not differentiated twice.
    threads: int = 0            # Threads of torch on a CPU; 0: torch's own default.
    ema_half_life: int = 10_000     # Half-life of the generators' moving average in images; 0: no average.
    # The half-life is at most this share of the images seen (Karras et al. 2020a, code).
    ema_ramp_up: float = 0.05
    log_every: int = 1_000      # Images per line in log.jsonl, with losses averaged over them.
    checkpoint_every: int = 10_000  # Images between checkpoints: sample grid, training state, model.
    # Generators recompute activations in the backward pass: less memory, more time.
    gradient_checkpointing: bool = False
    collapse_every: int = 1_000     # Images between checks whether the generator has collapsed.
    # If the generator has collapsed: warn, warn and stop, or do not check.
    on_collapse: Literal["warn", "stop", "off"] = "warn"
    keep_checkpoints: int = 2   # Number of training states kept.
    num_workers: int = 0        # Loader processes; 0: images are read in the training process.
    # Batches read ahead by each loader process, or by a thread; 0 (without processes): none.
    prefetch_factor: int = 2
    # Batches wait in page-locked memory, which a GPU copies from while it computes.
    pin_memory: bool = True
    async_writes: bool = True   # Sample grids, states and models are written by a thread during training.
    max_skips: int = 10         # Steps in a row with non-finite gradients at which the run stops.

    def __post_init__(self) -> None:
        for key in ("batch_size", "log_every", "checkpoint_every", "collapse_every", "keep_checkpoints",
                    "max_skips"):
            require(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "1 or more")
        for key in ("images", "seed", "ema_half_life", "num_workers", "prefetch_factor", "threads"):
            require(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "0 or more")
        for key, maximum in MAXIMA.items():
            require(getattr(self, key) <= maximum, f"train.{key}", getattr(self, key), f"{maximum} or fewer")
        require(self.prefetch_factor >= 1 or not self.num_workers, "train.prefetch_factor",
                self.prefetch_factor, "1 or more, with loader processes (train.num_workers)")
        require(not (self.gradient_checkpointing and self.compile), "train.gradient_checkpointing", "true",
                "false, with train.compile=true")
        require(self.ema_ramp_up > 0, "train.ema_ramp_up", self.ema_ramp_up, "more than 0")

    @property
    def torch_memory_format(self) -> torch.memory_format:
        """`memory_format` as torch knows it."""
        return torch.channels_last if self.memory_format == "channels-last" else torch.contiguous_format

    @property
    def steps(self) -> int:
        """Steps of the run, rounded up."""
        return -(-self.images // self.batch_size)


# Settings that may change on resuming, as they change no result.
OPERATIONAL = ("num_workers", "prefetch_factor", "pin_memory", "async_writes", "keep_checkpoints",
               "gradient_checkpointing", "collapse_every", "on_collapse")
