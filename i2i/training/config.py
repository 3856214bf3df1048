"""Settings of training: what `train.KEY=VALUE` sets."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from typing_extensions import Doc

from i2i.errors import require
from i2i.registry import Spec, component

# Beyond what any machine has; processes and queues are made of them.
MAXIMA = {"batch_size": 2**20, "num_workers": 512, "prefetch_factor": 1024, "threads": 1024}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of training.  Lengths and intervals are counted in images."""

    images: Annotated[int, Doc("Length of the run; 0: that of --epochs, by default 200")] = 0
    batch_size: Annotated[int, Doc("Images per step, all processes together")] = 1
    seed: Annotated[int, Doc("Seed of initial weights, order and crops of images, noise, dropout")] = 0
    # fp16 is not offered: loss scaling does not go together with gradient penalties.
    precision: Annotated[Literal["fp32", "bf16"], Doc(
        "Of the networks' computation; parameters stay fp32")] = "fp32"
    tf32: Annotated[bool, Doc(
        "On NVIDIA GPUs, fp32 products keep 10 bits of 23: faster, but no longer fp32")] = False
    memory_format: Annotated[Literal["contiguous", "channels-last"], Doc(
        "NCHW or NHWC in memory")] = "contiguous"
    compile: Annotated[bool, Doc("Use torch.compile for networks that are not differentiated twice")] = False
    cuda_graphs: Annotated[bool, Doc(
        "As compile, and on a GPU kernels are replayed as CUDA graphs (torch's reduce-overhead)")] = False
    device_augment: Annotated[Spec, Doc(
        "Augments batches on the device, after crop and flip: A and B alike, such as kornia with its ops"
        )] = component("augment", "none")  # noqa: RUF009 - a field, as dataclasses.field is.
    threads: Annotated[int, Doc("Threads of torch on a CPU; 0: torch's own default")] = 0
    ema_half_life: Annotated[int, Doc(
        "Half-life of the generators' moving average in images; 0: no average")] = 10_000
    ema_ramp_up: Annotated[float, Doc(
        "The half-life is at most this share of the images seen (Karras et al. 2020a, code)")] = 0.05
    freeze: Annotated[tuple[str, ...], Doc(
        "Parameters that do not learn: player or network and path, such as D.layers.0-2,G.down.*")] = ()
    log_every: Annotated[int, Doc("Images per line in log.jsonl, with losses averaged over them")] = 1_000
    growth_images: Annotated[int, Doc(
        "Images over which growing networks grow and instance noise fades; 0: the whole run")] = 0
    stop_when: Annotated[Literal["never", "flat", "worse"], Doc(
        "End early: once the evaluations no longer improve, or get worse, by their 95 % interval")] = "never"
    checkpoint_every: Annotated[int, Doc(
        "Images between checkpoints: sample grid, training state, model")] = 10_000
    gradient_checkpointing: Annotated[bool, Doc(
        "Generators recompute activations in the backward pass: less memory, more time")] = False
    collapse_every: Annotated[int, Doc("Images between checks whether the generator has collapsed")] = 1_000
    on_collapse: Annotated[Literal["warn", "stop", "off"], Doc(
        "If the generator has collapsed: warn, warn and stop, or do not check")] = "warn"
    keep_checkpoints: Annotated[int, Doc("Number of training states kept")] = 2
    keep_models: Annotated[str, Doc(
        "Models of checkpoints kept for RUN@IMAGES: the newest so many, or every")] = "0"
    num_workers: Annotated[int, Doc("Loader processes; 0: images are read in the training process")] = 0
    prefetch_factor: Annotated[int, Doc(
        "Batches read ahead by each loader process, or by a thread; 0 (without processes): none")] = 2
    pin_memory: Annotated[bool, Doc(
        "Batches wait in page-locked memory, which a GPU copies from while it computes")] = True
    async_writes: Annotated[bool, Doc(
        "Sample grids, states and models are written by a thread during training")] = True
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], Doc(
        "Write losses, metrics, sample grids and settings to these, too")] = ()
    callbacks: Annotated[tuple[str, ...], Doc("Names of registered callbacks that watch the run")] = ()
    max_skips: Annotated[int, Doc("Steps in a row with non-finite gradients at which the run stops")] = 10

    def __post_init__(self) -> None:
        for key in ("batch_size", "log_every", "checkpoint_every", "collapse_every", "keep_checkpoints",
                    "max_skips"):
            require(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "1 or more")
        for key in ("images", "seed", "ema_half_life", "num_workers", "prefetch_factor", "threads",
                    "growth_images"):
            require(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "0 or more")
        for key, maximum in MAXIMA.items():
            require(getattr(self, key) <= maximum, f"train.{key}", getattr(self, key), f"{maximum} or fewer")
        require(bool(re.fullmatch(r"\d{1,9}|every", self.keep_models)), "train.keep_models",
                self.keep_models, "a number, 0 or more, or every")
        require(self.prefetch_factor >= 1 or not self.num_workers, "train.prefetch_factor",
                self.prefetch_factor, "1 or more, with loader processes (train.num_workers)")
        require(not (self.gradient_checkpointing and (self.compile or self.cuda_graphs)),
                "train.gradient_checkpointing", "true", "false, with train.compile or train.cuda_graphs")
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
               "keep_models", "gradient_checkpointing", "collapse_every", "on_collapse", "stop_when",
               "trackers", "callbacks")
