"""Medians with their ranges on a log axis, as SVG that follows light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.chart import STYLE, WIDTH

LEFT, RIGHT, TOP, ROW = 400, 130, 50, 26


@dataclass(frozen=True)
class Range:
    """One row.   low, median, high: positive; None where nothing was reached, and `note` says why."""

    name: str
    low: float | None
    median: float | None
    high: float | None
    note: str = ""


def ranges(title: str, unit: str, rows: Sequence[Range]) -> str:
    """A line for each range, a dot for its median, and the median or the note beside it."""
    ends = [value for row in rows for value in (row.low, row.high) if value is not None]
    bottom = 10 ** math.floor(math.log10(min(ends, default=1.0)))
    top = 10 ** math.ceil(math.log10(max(ends, default=10.0)))
    height = TOP + ROW * len(rows) + 10

    def x(value: float) -> float:
        share = math.log(value / bottom) / math.log(max(top, 10 * bottom) / bottom)
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" font-family="ui-sans-serif,system-ui,sans-serif" font-size="13">',
        f"<title>{escape(title)}</title><style>{STYLE} circle{{fill:#2c7a5b}}</style>",
        f'<text x="{LEFT}" y="18" font-weight="600">{escape(unit)}</text>',
    ]
    for exponent in range(round(math.log10(bottom)), round(math.log10(max(top, 10 * bottom))) + 1):
        at = x(10**exponent)
        parts.append(f'<line class="g" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 10}" y2="{height - 6}"/>')
        parts.append(
            f'<text class="s" x="{at:.1f}" y="{TOP - 16}" text-anchor="middle">{10**exponent:g}</text>'
        )
    for index, row in enumerate(rows):
        parts += _row(row, TOP + ROW * index + ROW // 2, x)
    return "\n".join([*parts, "</svg>", ""])


def _row(row: Range, y: int, x: Callable[[float], float]) -> list[str]:
    parts = [f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>']
    if row.low is None or row.median is None or row.high is None:
        return [*parts, f'<text class="s" x="{LEFT + 6}" y="{y + 4}">{escape(row.note)}</text>']
    low, middle, high = x(row.low), x(row.median), x(row.high)
    text = f"{row.median:.0f}{f' ({row.note})' if row.note else ''}"
    return [
        *parts,
        f'<line class="o" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>',
        f'<circle cx="{middle:.1f}" cy="{y}" r="4.5"/>',
        f'<text class="s" x="{high + 9:.1f}" y="{y + 4}">{escape(text)}</text>',
    ]
