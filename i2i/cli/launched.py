"""The processes that a launcher started for one command."""

from __future__ import annotations

import os

from i2i.share import Alone, Team


def team(device: str) -> Team:
    """This process and the others of its job, as torchrun and accelerate launch tell each; alone where there is no launcher."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Alone()
    from i2i.engine.runtime import Runtime
    return Runtime(device=device)
