"""Straight flows between noise and images: interpolation, the times of steps, Euler and Heun.

The time s runs from 0, the image, to 1, the noise.
"""

from collections.abc import Callable

from torch import Tensor

from i2i.errors import require

Velocity = Callable[[Tensor, float], Tensor]


def interpolate(x0: Tensor, noise: Tensor, s: Tensor | float) -> Tensor:
    """The point at time s of the line from an image to noise.  Liu et al. 2023, equation 1."""
    return (1 - s) * x0 + s * noise


def flow_times(steps: int, shift: float = 1.0) -> list[float]:
    """The `steps` + 1 times between which steps are made, from 1 to 0.

    `shift` above 1 makes more of them where there is more noise.  Esser et al. 2024, equation 23.
    """
    require(steps >= 1, "steps", steps, "1 or more")
    times = [1 - i / steps for i in range(steps + 1)]
    return [shift * s / (1 + (shift - 1) * s) for s in times]


def euler_step(x: Tensor, velocity: Tensor, s: float, s_next: float) -> Tensor:
    """A step along the velocity at its start."""
    return x + (s_next - s) * velocity


def heun_step(x: Tensor, velocity: Velocity, s: float, s_next: float) -> Tensor:
    """A step along the mean of the velocities at its start and its Euler end: two evaluations."""
    start = velocity(x, s)
    end = velocity(euler_step(x, start, s, s_next), s_next)
    return euler_step(x, (start + end) / 2, s, s_next)
