"""The pictures of docs/understand/losses.md, computed by the losses and penalties themselves.

    python docs/loss_pictures.py
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import i2i.losses  # noqa: F401  They register themselves.
from i2i import registry
from i2i.registry import Spec, build

FOLDER = Path(__file__).parent / "understand"
WIDTH, HEIGHT, COLUMNS = 210, 150, 4
REAL, FAKE, G, POINT = "#0f766e", "#b45309", "#4f46e5", "#dc2626"
LOGITS = torch.linspace(-3, 3, 49)


def document(panels: Sequence[str], key: Sequence[tuple[str, str]]) -> str:
    """Panels in rows of COLUMNS, with a key of colors below."""
    rows = math.ceil(len(panels) / COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows + 34
    placed = [f'<g transform="translate({WIDTH * (i % COLUMNS)},{HEIGHT * (i // COLUMNS)})">{panel}</g>'
              for i, panel in enumerate(panels)]
    words = [f'<circle cx="{24 + 250 * i}" cy="{height - 17}" r="5" fill="{color}"/>'
             f'<text x="{35 + 250 * i}" y="{height - 13}">{text}</text>'
             for i, (color, text) in enumerate(key)]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            'font-family="system-ui,sans-serif" font-size="12" fill="#111827">'
            '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>'
            + "\n".join([*placed, *words]) + "</svg>\n")


def curves(name: str) -> str:
    """The panel of an adversarial loss: what one image costs by its logit."""
    loss, zero = build("adversarial", Spec(name)), torch.zeros(1)

    def line(values: list[Tensor], color: str) -> str:
        y = [115 - 15 * float(value) for value in values]
        points = " ".join(f"{105 + 28 * float(x):.1f},{each:.1f}"
                          for x, each in zip(LOGITS, y, strict=True) if 22 < each < 140)
        dash = ' stroke-dasharray="6 4"' if color == G else ""      # It may lie on D's.
        return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'

    ticks = "".join(f'<text x="{105 + 28 * x}" y="148" text-anchor="middle" font-size="9" '
                    f'fill="#6b7280">{x}</text>' for x in (-3, 0, 3))
    base = (loss.d(zero, zero) / 2).squeeze()        # The other image of the pair is worth a logit of 0.
    return (f'<text x="105" y="16" text-anchor="middle" font-weight="bold">{name}</text>'
            '<path d="M21,115H189M105,22V140" stroke="#d1d5db"/>' + ticks
            + line([loss.d(x[None], zero) - base for x in LOGITS], REAL)
            + line([loss.d(zero, x[None]) - base for x in LOGITS], FAKE)
            + line([loss.g(x[None], zero) for x in LOGITS], G))


def points(name: str) -> str:
    """The panel of a gradient penalty: where it takes D's gradient, among points in a plane."""
    angle = torch.arange(8) * math.pi / 4
    real = torch.stack([angle.cos(), angle.sin()], 1)[:, :, None, None]
    fake = torch.stack([0.35 * angle.cos() - 0.1, 0.3 * angle.sin()], 1)[:, :, None, None]
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.square().sum((1, 2, 3))

    torch.manual_seed(0)
    penalty = build("penalty", Spec(name))
    for _ in range(4):
        penalty(critic, real, fake)

    def dots(where: Tensor, color: str, radius: float) -> str:
        return "".join(f'<circle cx="{105 + 52 * x:.0f}" cy="{84 - 46 * y:.0f}" r="{radius}" fill="{color}"/>'
                       for x, y in where.flatten(1).tolist())
    return (f'<text x="105" y="16" text-anchor="middle" font-weight="bold">{name}</text>'
            + dots(real, REAL, 6) + dots(fake, FAKE, 6) + dots(torch.cat(seen), POINT, 2))


def files() -> dict[Path, str]:
    """Both pictures: path -> text."""
    losses = [name for name in registry.names("adversarial") if name != "ragan"]    # As rpgan, of one pair.
    penalties = [name for name in registry.names("penalty")
                 if getattr(registry.lookup("penalty", name), "uses_input_gradients", False)]
    return {FOLDER / "losses.svg": document([curves(name) for name in losses], (
                (REAL, "D's loss, of a real image"), (FAKE, "D's loss, of a generated image"),
                (G, "G's loss, of a generated image (dashed)"))),
            FOLDER / "penalties.svg": document([points(name) for name in penalties], (
                (REAL, "real"), (FAKE, "generated"), (POINT, "where D's gradient is taken")))}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
