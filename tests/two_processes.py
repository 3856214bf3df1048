"""Two processes that go through the same command lines one after the other: starting them costs more than what they do.

As a script: one of them, told by a launcher's variables which.  Its results are written to OUT.RANK.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass
class Done:
    """What a command line did in one of the processes.  `identical`: the parameters a training ended with are those of the other, bit by bit."""

    code: int
    out: str
    err: str
    identical: bool | None


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(rank: int, port: int, world_size: int = 2) -> dict[str, str]:
    """What torchrun and accelerate launch tell a process."""
    others = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")     # Which go before OMP_NUM_THREADS.
    return {key: value for key, value in os.environ.items() if key not in others} | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
                         "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def start(words: Sequence[object], cwd: Path) -> list[subprocess.Popen[str]]:
    """The same python words in two processes."""
    port = free_port()
    return [subprocess.Popen([sys.executable, *map(str, words)], cwd=cwd, env=environment(rank, port), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in (0, 1)]


def together(cwd: Path, commands: Sequence[Sequence[object]], *, seconds: float = 240) -> list[tuple[Done, Done]]:
    """What each command line did in either process."""
    out = cwd / f"pair-{free_port()}"
    one, other = _ended(out, start(_script(out, commands), cwd), seconds)
    return list(zip(one, other, strict=True))


def alone(cwd: Path, commands: Sequence[Sequence[object]], *, threads: int = 1, seconds: float = 240) -> list[Done]:
    """What each did in one process with as many threads of NumPy's BLAS: those of the two have one each, and BLAS adds in another order
    with another number of them."""
    out = cwd / f"alone-{free_port()}"
    env = {key: value for key, value in environment(0, 0).items() if "WORLD_SIZE" not in key} | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen([sys.executable, *_script(out, commands)], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    (done,) = _ended(out, [process], seconds)
    return done


def _script(out: Path, commands: Sequence[Sequence[object]]) -> list[str]:
    return [__file__, str(out), json.dumps([[str(word) for word in command] for command in commands])]


def _ended(out: Path, processes: list[subprocess.Popen[str]], seconds: float) -> list[list[Done]]:
    ended = [process.communicate(timeout=seconds) for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(err[-3000:] for _, err in ended)
    return [[Done(**each) for each in json.loads(Path(f"{out}.{rank}.json").read_text())] for rank in range(len(processes))]


def _identical(trainer: Any) -> bool:
    import torch
    import torch.distributed as dist
    mine = torch.cat([p.detach().double().flatten() for p in trainer.modules.parameters()])
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return all(torch.equal(mine, other) for other in everyone)


def main(out: str, commands: list[list[str]]) -> None:
    import torch

    from i2i.cli import app
    from i2i.metrics import judges
    from i2i.training import train as training
    from i2i.training.callbacks import fixed_inputs
    from i2i.training.memory import MemoryEstimate
    torch.set_num_threads(1)
    judges.SECOND_JUDGES = ()       # As in the test process, and as there, features take seconds.
    training.best_embedding = lambda device, tell, *rest: fixed_inputs.thumbnails(fixed_inputs.THUMBNAIL_SIZE)
    training.memory_estimate = lambda job, world_size=1: MemoryEstimate(0, 0, 0, 0, 0)      # Costs half a second, and writes nothing.
    trainers: list[Any] = []
    original = training.Trainer.run

    def run(self: Any, *args: Any) -> int:
        trainers.append(self)
        return original(self, *args)

    training.Trainer.run = run      # type: ignore[method-assign]
    results = []
    for words in commands:
        trainers.clear()
        with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.redirect_stderr(io.StringIO()) as complained:
            code = app.run(words)
        results.append({"code": code, "out": told.getvalue(), "err": complained.getvalue(), "identical": _identical(trainers[0]) if trainers else None})
    Path(f"{out}.{os.environ['RANK']}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
