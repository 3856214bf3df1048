"""Draw small acyclic graphs as SVG, in layers from left to right."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

COLUMN, ROW, HEIGHT, CHARACTER = 132, 40, 26, 7.4
STYLES = {"input": ("#f3f4f6", "#9ca3af"), "frozen": ("#ffffff", "#6b7280"),
          "trained": ("#c7d2fe", "#4f46e5"), "loss": ("#fef3c7", "#d97706")}


@dataclass(frozen=True)
class Node:
    """A box: its text and its style, a key of STYLES."""

    text: str
    style: str = "frozen"


Edge = tuple[str, str, bool]        # From, to, dashed.


def layers_of(nodes: Iterable[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The layer of each node: one more than the highest of those that lead to it."""
    sources = {node: [a for a, b, _ in edges if b == node] for node in nodes}
    found: dict[str, int] = {}

    def layer(node: str) -> int:
        if node not in found:
            found[node] = 1 + max(map(layer, sources[node]), default=-1)
        return found[node]

    for node in sources:
        layer(node)
    last, fed = max(found.values()), {node: [b for a, b, _ in edges if a == node] for node in found}
    found |= {node: last for node in found if not fed[node]}
    # Inputs stand right before what they feed first.
    found |= {node: min(found[b] for b in fed[node]) - 1 for node in found if fed[node] and not sources[node]}
    return found


Places = dict[str, tuple[float, float]]


def place(nodes: Iterable[str], edges: Sequence[Edge]) -> tuple[Places, dict[Edge, list[str]]]:
    """Centers of all nodes, and the way of each edge through them and through bends, which are nodes, too."""
    layer = layers_of(nodes, edges)
    ways: dict[Edge, list[str]] = {}
    for edge in edges:
        a, b, _ = edge
        bends = [f"{a}>{b}@{i}" for i in range(layer[a] + 1, layer[b])]
        layer |= {bend: layer[a] + 1 + i for i, bend in enumerate(bends)}
        ways[edge] = [a, *bends, b]
    columns = [[node for node in layer if layer[node] == i] for i in range(max(layer.values()) + 1)]
    y = {node: float(i) for column in columns for i, node in enumerate(column)}
    links = [link for way in ways.values() for link in pairwise(way)]
    for sweep in range(12):         # Each column by the one before it, then by the one after it, …
        for column in columns if sweep % 2 == 0 else columns[::-1]:
            near = {node: [y[a] if sweep % 2 == 0 else y[b] for a, b in links
                           if node == (b if sweep % 2 == 0 else a)] for node in column}
            y |= settle({node: sum(ys) / len(ys) if ys else y[node] for node, ys in near.items()})
    top = min(y.values())
    return {node: (COLUMN * (layer[node] + 0.5), ROW * (y[node] - top + 0.5)) for node in layer}, ways


def settle(wanted: Mapping[str, float]) -> dict[str, float]:
    """Heights near those wanted, at least one row apart."""
    heights: dict[str, float] = {}
    last = -math.inf
    for node in sorted(wanted, key=lambda node: (wanted[node], node)):
        heights[node] = last = max(wanted[node], last + 1)
    shift = (sum(wanted.values()) - sum(heights.values())) / len(heights)
    return {node: height + shift for node, height in heights.items()}


def graph(nodes: Mapping[str, Node], edges: Sequence[Edge], top: float) -> tuple[list[str], float, float]:
    """SVG elements of one graph below `top`, and its width and bottom."""
    centers, ways = place(nodes, edges)
    parts = []
    for (a, b, dashed), way in ways.items():
        points = [(x, y + top) for x, y in (centers[node] for node in way)]
        points[0] = (sum(span(nodes[a], points[0][0])), points[0][1])
        points[-1] = (span(nodes[b], points[-1][0])[0] - 6, points[-1][1])
        path = f"M{points[0][0]:.0f},{points[0][1]:.0f}"
        for (x0, y0), (x1, y1) in pairwise(points):
            middle = (x0 + x1) / 2
            path += f" C{middle:.0f},{y0:.0f} {middle:.0f},{y1:.0f} {x1:.0f},{y1:.0f}"
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(f'<path d="{path}" fill="none" stroke="#6b7280" stroke-width="1.3"{dash} '
                     'marker-end="url(#tip)"/>')
    for name, node in nodes.items():
        x, y = centers[name]
        fill, line = STYLES[node.style]
        left, width = span(node, x)
        parts.append(f'<rect x="{left:.0f}" y="{y + top - HEIGHT / 2:.0f}" width="{width:.0f}" '
                     f'height="{HEIGHT}" rx="{13 if node.style == "input" else 4}" fill="{fill}" '
                     f'stroke="{line}"/><text x="{left + width / 2:.0f}" y="{y + top + 4:.0f}" '
                     f'text-anchor="middle">{escape(node.text)}</text>')
    right = max(sum(span(node, centers[name][0])) for name, node in nodes.items())
    return parts, right, top + max(y for _, y in centers.values()) + ROW / 2


def span(node: Node, center: float) -> tuple[float, float]:
    """The left end and the width of a box; wide ones go on to the right."""
    width = max(34, CHARACTER * len(node.text) + 16)
    return center - min(width, COLUMN - 26) / 2, width


def picture(graphs: Sequence[tuple[str, Mapping[str, Node], Sequence[Edge]]]) -> str:
    """One SVG of graphs, below each other, each with a title above unless that is empty."""
    parts: list[str] = []
    width, bottom = 0.0, 6.0
    for title, nodes, edges in graphs:
        if title:
            parts.append(f'<text x="14" y="{bottom + 20:.0f}" font-weight="bold">{escape(title)}</text>')
            bottom += 30
        drawn, right, bottom = graph(nodes, edges, bottom)
        parts += drawn
        width, bottom = max(width, right, CHARACTER * len(title)), bottom + 10
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 14:.0f} {bottom:.0f}" '
            f'width="{width + 14:.0f}" font-family="system-ui,sans-serif" font-size="13" fill="#111827">'
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#6b7280"/></marker></defs>'
            '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>' + "\n".join(parts) + "</svg>\n")
