"""i2i explore."""

from __future__ import annotations

from typing import Any

from i2i.errors import RequestError, require
from i2i.inference import animation, explore
from i2i.inference import model as inference


def interpolate(model: str, out: str, *, grid: str, device: str, **settings: Any) -> None:
    """Write a sheet of the ways between images."""
    path, (columns, rows) = animation.check_output(out, animation.SHEETS), explore.parse_grid(grid)
    animation.save_sheet(path,
                         explore.sheet(explore.interpolate(inference.load(model, device), columns, rows,
                                                           **settings)))
    print(path)


def mix(model: str, out: str, *, grid: str, device: str, **settings: Any) -> None:
    """Write a sheet of mixed styles."""
    path, (columns, rows) = animation.check_output(out, animation.SHEETS), explore.parse_grid(grid)
    if rows is None:
        raise RequestError(f"--grid {grid} has no rows; accepted: COLUMNSxROWS, such as 5x5")
    animation.save_sheet(path,
                         explore.sheet(explore.mix(inference.load(model, device), columns, rows, **settings)))
    print(path)


def walk(model: str, out: str, *, frames: int, fps: int | None, device: str, **settings: Any) -> None:
    """Write a walk as a film or a strip."""
    path = animation.check_output(out, (*animation.ANIMATIONS, *animation.SHEETS))
    strip, gif = path.suffix.lower() in animation.SHEETS, path.suffix.lower() == ".gif"
    if strip and fps is not None:
        raise RequestError(f"--fps {fps} is for films; {out} is a strip")
    fps = animation.FPS if fps is None else fps
    fastest = animation.MAX_FPS if gif else 240
    require(1 <= fps <= fastest, "--fps", fps,
            f"1 to {fastest}" + (", more than which viewers of GIFs do not show" if gif else ""))
    walked = explore.walk(inference.load(model, device), frames, **settings)
    if strip:
        animation.save_sheet(path, explore.strip(walked, frames))
    else:
        animation.save_animation(path, map(explore.frame, walked), frames, fps)
    print(path)
