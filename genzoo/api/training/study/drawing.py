"""A study as a picture: a row a cell, a panel a measure, a dot a seed, a line at the median."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

from genzoo.api.training.study.definition import Study
from genzoo.api.training.study.results import CellResult

NAMES, PANEL, GAP, ROW, TOP, PANELS = 150, 150, 24, 22, 44, 4
STYLE = """text{fill:#222;font:12px ui-sans-serif,system-ui,sans-serif} .s{fill:#666;font-size:10px}
line{stroke:#bbb} .m{stroke:#c8843c;stroke-width:3} circle{fill:#2c7a5b;fill-opacity:.7}
@media(prefers-color-scheme:dark){text{fill:#eee} .s{fill:#aaa} line{stroke:#555} circle{fill:#58b88f}}"""


def draw(study: Study, results: Sequence[CellResult]) -> str:
    """The first measures as SVG that follows light and dark pages; a cell not run has an empty row."""
    shown = [name for name in study.measures if any(one.values[name] for one in results)][:PANELS]
    width, height = NAMES + len(shown) * (PANEL + GAP), TOP + ROW * len(results) + 8
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<title>{escape(study.title)}</title><style>{STYLE}</style>",
    ]
    for row, result in enumerate(results):
        parts.append(f'<text x="4" y="{_height(row) + 4}">{escape(result.name)}</text>')
    for column, heading in enumerate(shown):
        values = [result.values[heading] for result in results]
        parts += _panel(heading, values, NAMES + column * (PANEL + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _panel(heading: str, values: Sequence[Sequence[float]], left: int) -> list[str]:
    low, high = min(v for each in values for v in each), max(v for each in values for v in each)
    reach = (high - low) or abs(high) or 1.0

    def place(value: float) -> str:
        return f"{left + 6 + (PANEL - 12) * (value - low) / reach:.1f}"

    bottom = _height(len(values)) - ROW // 2
    parts = [
        f'<text x="{left}" y="16">{escape(heading)}</text>',
        f'<text class="s" x="{left}" y="32">{low:.3g}</text>',
        f'<text class="s" x="{left + PANEL}" y="32" text-anchor="end">{high:.3g}</text>',
        *(f'<line x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{bottom}"/>' for x in (left, left + PANEL)),
    ]
    for row, each in enumerate(values):
        y = _height(row)
        parts += [f'<circle cx="{place(value)}" cy="{y}" r="4"/>' for value in each]
        if each:
            x = place(statistics.median(each))
            parts.append(f'<line class="m" x1="{x}" x2="{x}" y1="{y - 7}" y2="{y + 7}"/>')
    return parts


def _height(row: int) -> int:
    return TOP + ROW * row + ROW // 2
