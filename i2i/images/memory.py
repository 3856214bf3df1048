"""The memory that is available to this process, and which large images are decoded in it at once."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS, PROCESS_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
LARGE = 1 << 27             # Bytes from which on the decoding of an image waits for memory.
MORE_MEMORY = "accepted: a smaller image, or more memory"
PILLOW_BYTES = 25           # By pixel, at the peak of decoding: measured 18 (PNG, JPEG) to 26 (WebP).


def available_host_memory() -> int:
    """Bytes this process can allocate: within its own limit, those of its control groups and all memory."""
    limits = [psutil.virtual_memory().available]
    if hasattr(psutil, "RLIMIT_AS"):
        soft, _ = psutil.Process().rlimit(psutil.RLIMIT_AS)
        if soft != psutil.RLIM_INFINITY:
            limits.append(soft - psutil.Process().memory_info().vms)
    return min([*limits, *_control_groups()])


def _control_groups() -> Iterator[int]:
    """What is available in the control group of this process and those around it (version 2)."""
    group = ""
    with contextlib.suppress(OSError):
        lines = PROCESS_GROUP.read_text().splitlines()
        group = next((line[3:] for line in lines if line.startswith("0::")), "").strip("/")
    inner = CGROUPS / group
    for folder in (inner, *inner.parents[:len(Path(group).parts)]):
        with contextlib.suppress(OSError, ValueError):      # There is none, or it says "max".
            limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
            # Files that were read count as used until the memory is needed.
            cached = [int(line.split()[1]) for line in (folder / "memory.stat").read_text().splitlines()
                      if line.startswith("inactive_file ")]
            yield limit - used + sum(cached)


class _Reservations:
    """The bytes that are promised to images that are being decoded in this process."""

    def __init__(self) -> None:
        self.total, self.changed = 0, threading.Condition()


_reservations = _Reservations()
if hasattr(os, "register_at_fork"):     # The threads that would release them are not in the child.
    os.register_at_fork(after_in_child=_reservations.__init__)  # type: ignore[misc]


@contextlib.contextmanager
def reserve_memory(width: int, height: int, bytes_per_pixel: int = PILLOW_BYTES) -> Iterator[None]:
    """Wait until there is memory to decode a large image beside those that other threads decode.

    Raises:
        ValueError: if there is too little even for this one.
    """
    needed, mine = width * height * bytes_per_pixel, _reservations
    if needed < LARGE:
        yield
        return
    with mine.changed:
        while mine.total and mine.total + needed > available_host_memory():
            mine.changed.wait()
        if needed > (free := available_host_memory()):
            raise ValueError(f"{width} x {height} pixels need about {needed / 1e9:.1f} GB of memory to be "
                             f"decoded, and {free / 1e9:.1f} GB are free; {MORE_MEMORY}")
        mine.total += needed
    try:
        yield
    finally:
        with mine.changed:
            mine.total -= needed
            mine.changed.notify_all()
