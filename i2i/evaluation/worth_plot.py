"""The plot of `i2i worth`: mean recall by share of the real images, and gains by ratio, as SVG."""

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 760, 330, 60, 34, 44, 220
COLORS = ("#1f4ea1", "#d67a5c", "#2f8f5b", "#8a5bb0", "#b08a1f", "#4aa3b5", "#a14a7a", "#777777", "#111111")
STYLE = "font:12px sans-serif;fill:#222"


def plot(outcome: dict[str, Any]) -> str:
    """A complete SVG file."""
    shares = sorted({row["share"] for row in outcome["conditions"]})
    names = list(dict.fromkeys(row["condition"] for row in outcome["conditions"]))
    body = _panel(0, "Mean recall on real test images (95 % interval over seeds)",
                  _series(outcome, names, "mean_recall"), shares, 100.0)
    body += _panel(HEIGHT, "Gain over real images alone, in points (95 % interval)",
                   _series(outcome, names, "gain"), shares, 100.0, zero=True)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {2 * HEIGHT}" '
            f'width="{WIDTH}" height="{2 * HEIGHT}"><rect width="100%" height="100%" fill="#fff"/>'
            f'{body}</svg>\n')


# Name, color, points (share, y, low, high).
Series = list[tuple[str, str, list[tuple[float, float, float, float]]]]


def _series(outcome: dict[str, Any], names: Sequence[str], key: str) -> Series:
    found = []
    for number, name in enumerate(names):
        points = [(row["share"], *(row[key][part] for part in ("value", "low", "high")))
                  for row in outcome["conditions"] if row["condition"] == name and key in row]
        if points:
            found.append((name, COLORS[number % len(COLORS)], sorted(points)))
    return found


def _panel(y0: int, title: str, series: Series, shares: Sequence[float], scale: float, *,
           zero: bool = False) -> str:
    """One plot below another; shares stand side by side, conditions slightly apart."""
    values = [value for _, _, points in series for point in points for value in point[1:]] + [0.0] * zero
    low, high = min(values) * scale, max(values) * scale
    low, high = low - 0.05 * (high - low) - 0.1, high + 0.05 * (high - low) + 0.1
    right, bottom, top = WIDTH - LEGEND, y0 + HEIGHT - BOTTOM, y0 + TOP

    def y(value: float) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - top), 1)

    out = [f'<text x="{LEFT}" y="{y0 + 18}" style="{STYLE};font-weight:bold">{escape(title)}</text>']
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 100) if (high - low) / s <= 8)
    tick = step * -(-low // step)
    while tick <= high:
        color = "#888" if zero and tick == 0 else "#e4e4e4"
        text = (f"{tick:+g}" if tick else "0") if zero else f"{tick:g} %"
        out.append(f'<path d="M{LEFT} {y(tick)}H{right}" stroke="{color}"/>'
                   f'<text x="{LEFT - 6}" y="{y(tick) + 4}" style="{STYLE}" text-anchor="end">{text}</text>')
        tick += step
    place = {share: LEFT + (i + 0.5) * (right - LEFT) / len(shares) for i, share in enumerate(shares)}
    out += [f'<text x="{x}" y="{bottom + 20}" style="{STYLE}" text-anchor="middle">{share:g} % of the real '
            f'images</text>' for share, x in place.items()]
    spread = 0.75 * (right - LEFT) / len(shares) / max(1, len(series))
    for number, (name, color, points) in enumerate(series):
        dx = (number - (len(series) - 1) / 2) * spread
        for share, value, below, above in points:
            x = round(place[share] + dx, 1)
            out.append(f'<path d="M{x} {y(scale * below)}V{y(scale * above)}" stroke="{color}" '
                       f'stroke-width="2"/><circle cx="{x}" cy="{y(scale * value)}" r="4" fill="{color}"/>')
        out.append(f'<circle cx="{right + 16}" cy="{top + 10 + 20 * number}" r="5" fill="{color}"/>'
                   f'<text x="{right + 28}" y="{top + 14 + 20 * number}" style="{STYLE}">{escape(name)}'
                   '</text>')
    return "".join(out)
