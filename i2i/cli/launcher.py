"""The processes that a launcher started for one command."""

from __future__ import annotations

from i2i.data.sharding import ProcessGroup, SingleProcess


def process_group(device: str) -> ProcessGroup:
    """The processes that torchrun or accelerate launch started, or this process alone."""
    from i2i.inference.device import num_launched
    if num_launched() < 2:
        return SingleProcess()
    from i2i.training.distributed import Runtime
    return Runtime(device=device)
