"""i2i explore."""

from __future__ import annotations

from typing import Any

from i2i import explore, infer
from i2i.errors import RequestError
from i2i.spec import require


def interpolate(model: str, out: str, *, grid: str, device: str, **settings: Any) -> None:
    """Write a sheet of the ways between images."""
    path, (columns, rows) = explore.check_out(out, explore.SHEETS), explore.parse_grid(grid)
    explore.save_sheet(path, explore.sheet(explore.interpolate(infer.load(model, device), columns, rows, **settings)))
    print(path)


def mix(model: str, out: str, *, grid: str, device: str, **settings: Any) -> None:
    """Write a sheet of mixed styles."""
    path, (columns, rows) = explore.check_out(out, explore.SHEETS), explore.parse_grid(grid)
    if rows is None:
        raise RequestError(f"--grid {grid} has no rows; accepted: COLUMNSxROWS, such as 5x5")
    explore.save_sheet(path, explore.sheet(explore.mix(infer.load(model, device), columns, rows, **settings)))
    print(path)


def walk(model: str, out: str, *, frames: int, fps: int | None, device: str, **settings: Any) -> None:
    """Write a walk as a film or a strip."""
    path = explore.check_out(out, (*explore.FILMS, *explore.SHEETS))
    strip, gif = path.suffix.lower() in explore.SHEETS, path.suffix.lower() == ".gif"
    if strip and fps is not None:
        raise RequestError(f"--fps {fps} is for films; {out} is a strip")
    fps = explore.FPS if fps is None else fps
    fastest = explore.FASTEST if gif else 240
    require(1 <= fps <= fastest, "--fps", fps, f"1 to {fastest}" + (", more than which viewers of GIFs do not show" if gif else ""))
    walked = explore.walk(infer.load(model, device), frames, **settings)
    if strip:
        explore.save_sheet(path, explore.strip(walked, frames))
    else:
        explore.save_film(path, map(explore.frame, walked), frames, fps)
    print(path)
