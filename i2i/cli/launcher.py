"""The processes that a launcher started for one command."""

from __future__ import annotations

from i2i.data.sharding import ProcessGroup, SingleProcess


def team(device: str) -> ProcessGroup:
    """This process and the others of its job, as torchrun and accelerate launch tell each; alone where there
    is no launcher."""
    from i2i.inference.device import num_launched
    if num_launched() < 2:
        return SingleProcess()
    from i2i.training.distributed import Runtime
    return Runtime(device=device)
