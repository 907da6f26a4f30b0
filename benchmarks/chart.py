"""Bars and curves on log scales, as SVG that follows light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP = 760, 300, 60, 34
BAR, GAP, TITLE = 15, 5, 20
NAME_HEIGHT = 15
STYLE = """
 text{fill:#222} .s{fill:#666;font-size:11px} .b{fill:#c8843c}
 .g{stroke:#bbb;stroke-dasharray:2 3} .o{stroke:#2c7a5b;stroke-width:2}
 @media (prefers-color-scheme: dark){
  text{fill:#eee} .s{fill:#aaa} .b{fill:#d99a57} .g{stroke:#555} .o{stroke:#58b88f}
 }
"""


@dataclass(frozen=True)
class Group:
    """Peers of one case: (name, times slower than genzoo), which stands for 1."""

    title: str
    peers: Sequence[tuple[str, float]]


def bars(groups: Sequence[Group], *, longest: float = 200) -> str:
    """The chart as SVG. Bars begin at 1, where genzoo is."""
    parts, y = [], TOP
    for group in groups:
        parts.append(f'<text x="10" y="{y + TITLE - 6}" font-weight="600">{escape(group.title)}</text>')
        y += TITLE
        for name, times in group.peers:
            parts += _bar(name, times, y, longest)
            y += BAR + GAP
        y += 2 * GAP
    return "\n".join([*_head(y), *_grid(y, longest), *parts, "</svg>", ""])


def _bar(name: str, times: float, y: int, longest: float) -> list[str]:
    start, end = _x(1, longest), _x(times, longest)
    x, width = min(start, end), abs(end - start)
    return [
        f'<text class="s" x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
        f'<rect class="b" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>',
        f'<text class="s" x="{max(start, end) + 5:.1f}" y="{y + 12}">{times:.3g}</text>',
    ]


def _grid(height: int, longest: float) -> list[str]:
    lines = []
    for value in (1, 2, 5, 10, 20, 50, 100, 200):
        x, kind = _x(value, longest), "o" if value == 1 else "g"
        lines.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height}"/>')
        label = "genzoo" if value == 1 else str(value)
        lines.append(f'<text class="s" x="{x:.1f}" y="{TOP - 12}" text-anchor="middle">{label}</text>')
    return lines


def _head(height: int) -> list[str]:
    size = f'viewBox="0 0 {WIDTH} {height + 4}" width="{WIDTH}" height="{height + 4}"'
    font = 'font-family="ui-sans-serif,system-ui,sans-serif" font-size="13"'
    title = "<title>How many times slower than genzoo, on a log scale</title>"
    return [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>', title, f"<style>{STYLE}</style>"]


def _x(times: float, longest: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(times) / math.log(longest)


@dataclass(frozen=True)
class Line:
    """A curve of (x, y), both positive; kind: its colour, "b" or "o"."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: str


def curves(title: str, panels: Sequence[tuple[str, Sequence[Line]]]) -> str:
    """Panels side by side with log axes: what is counted upwards, and lines over the number of tokens."""
    width, height, pad = WIDTH // len(panels), 300, 52
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    font = 'font-family="ui-sans-serif,system-ui,sans-serif" font-size="13"'
    style = STYLE + " polyline{fill:none;stroke-width:2} .lb{stroke:#c8843c} .lo{stroke:#2c7a5b}"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>', f"<title>{escape(title)}</title>"]
    parts.append(f"<style>{style}</style>")
    for index, (unit, lines) in enumerate(panels):
        parts += _panel(unit, lines, index * width + pad, width - pad - 60, height - 44)
    return "\n".join([*parts, "</svg>", ""])


def _panel(unit: str, lines: Sequence[Line], left: int, width: int, bottom: int) -> list[str]:
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    top, (low, high) = 40, _decades(ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / min(xs)) / math.log(max(xs) / min(xs))
        return left + width * across, bottom - (bottom - top) * math.log(y / low) / math.log(high / low)

    parts = [f'<text x="{left}" y="22" font-weight="600">{escape(unit)}</text>']
    for exponent in range(round(math.log10(low)), round(math.log10(high)) + 1):
        _, y = place(min(xs), 10**exponent)
        parts.append(f'<line class="g" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="s" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:g}</text>'
        )
    for x in sorted(set(xs)):
        across, _ = place(x, low)
        parts.append(
            f'<text class="s" x="{across:.1f}" y="{bottom + 18}" text-anchor="middle">{x:,.0f}</text>'
        )
    parts.append(
        f'<text class="s" x="{left + width / 2}" y="{bottom + 34}" text-anchor="middle">tokens</text>'
    )
    names_end = -math.inf
    for line in sorted(lines, key=lambda line: -line.points[-1][1]):
        placed = [place(x, y) for x, y in line.points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline class="l{line.kind}" points="{way}"/>')
        # names of curves that end together stand below each other
        names_end = max(placed[-1][1] + 4, names_end + NAME_HEIGHT)
        parts.append(f'<text x="{placed[-1][0] + 6:.1f}" y="{names_end:.1f}">{escape(line.name)}</text>')
    return parts


def _decades(values: Sequence[float]) -> tuple[float, float]:
    return 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))
