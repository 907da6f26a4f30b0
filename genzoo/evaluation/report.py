"""One HTML page about an evaluation, with its pictures inside: nothing is fetched when it is opened."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.core.reading import read_bytes
from genzoo.data.array_files import Array
from genzoo.data.picture_sets import PictureSet
from genzoo.evaluation.facts import made_text
from genzoo.evaluation.measures.nearest import nearest
from genzoo.evaluation.tables import interval_text, number, paper_table
from genzoo.pictures.grid import make_grid

if TYPE_CHECKING:
    from genzoo.evaluation.protocols import Protocol
    from genzoo.evaluation.result import EvaluationResult

GRID, PAIRS, SEARCHED = 64, 12, 5000
STYLE = """
:root{color-scheme:light dark;--ink:#222;--soft:#666;--line:#ddd;--paper:#fff;--card:#f6f6f6;--warn:#fff3cd;
--mark:#36c}
@media(prefers-color-scheme:dark){
:root{--ink:#e4e7ec;--soft:#9aa3b0;--line:#363c46;--paper:#15181d;--card:#1d2127;--warn:#332a16;--mark:#7aa7ff}}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--paper);overflow-wrap:break-word}
table{border-collapse:collapse}td{padding:.2rem .8rem;border-bottom:1px solid var(--line)}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
img{image-rendering:pixelated;max-width:100%;background:#fff}svg{max-width:100%;height:auto}
polyline{stroke:var(--mark)}pre{overflow-x:auto;background:var(--card);padding:.8rem}
.warn{background:var(--warn);padding:.3rem;margin:.3rem 0}.made{color:var(--soft)}
figure{display:inline-block;margin:.4rem}figcaption{font-size:12px;color:var(--soft)}
"""


MADE_BY = '<meta name="generator" content="genzoo evaluate">'


def is_page(path: Path) -> bool:
    """Whether a file is a page that `build_report` made."""
    try:
        return MADE_BY.encode() in read_bytes(path)[:512]
    except DataError:
        return False


def build_report(
    result: EvaluationResult,
    protocol: Protocol,
    generated: PictureSet,
    reference: PictureSet | None = None,
    metrics_file: Path | None = None,
) -> str:
    """The page: numbers, warnings, samples, nearest reference images, curves, papers, the whole JSON."""
    shown = [generated.read(index) for index in range(min(GRID, len(generated)))]
    parts = [
        _section("Numbers", _numbers(result)),
        _section("Samples", _picture(_grid(shown), "the first samples")),
    ]
    if reference is not None:
        parts.append(_section("Nearest reference images", _neighbours(generated, reference)))
    if metrics_file is not None and metrics_file.is_file():
        parts.append(_section("Training curves", _curves(read_metrics(metrics_file))))
    parts.append(_section("Beside the papers", f"<pre>{html.escape(paper_table(result, protocol))}</pre>"))
    parts.append(_section("Everything stated", f"<pre>{html.escape(result.to_json())}</pre>"))
    title = html.escape(f"{result.protocol}: {result.generated.get('num')} images")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8">{MADE_BY}<title>{title}</title>'
    head += f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style>'
    return f"{head}<h1>{title}</h1>{''.join(parts)}</html>\n"


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>\n{body}\n"


def _numbers(result: EvaluationResult) -> str:
    rows = "".join(
        f'<tr><td>{html.escape(name)}<td class="n">{number(value)}'
        f'<td class="n">{interval_text(result.intervals.get(name))}'
        for name, value in result.metrics.items()
    )
    notes = [f"differs from {result.protocol}: {line}" for line in result.differences] + list(result.warnings)
    warnings = "".join(f'<div class="warn">{html.escape(line)}</div>' for line in notes)
    made = html.escape(made_text(result))
    return f"<table>{rows}</table>{f'<p class=made>made with: {made}</p>' if made else ''}{warnings}"


def _grid(pictures: Sequence[Array], *, smallest: int = 48) -> Image.Image:
    """Pictures side by side, each at the size of the first; small ones enlarged pixel by pixel."""
    size = pictures[0].shape[1], pictures[0].shape[0]
    alike = [np.array(Image.fromarray(picture).resize(size)) for picture in pictures]
    return make_grid(torch.from_numpy(np.stack(alike)).movedim(-1, 1), min_cell=smallest).image


def _picture(image: Image.Image, caption: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    alt = html.escape(caption)
    return (
        f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'
    )


def _neighbours(generated: PictureSet, reference: PictureSet) -> str:
    """Samples beside the reference image whose small grey version is nearest."""
    queries = _thumbnails(generated, range(min(PAIRS, len(generated))))
    # a large reference is searched at even steps: the caption says how many images were looked at
    searched = np.linspace(0, len(reference) - 1, min(SEARCHED, len(reference))).astype(int).tolist()
    found = nearest(queries, _thumbnails(reference, searched))
    figures = []
    for index, (distance, where) in enumerate(zip(found.distances[:, 0], found.indices[:, 0], strict=True)):
        pair = [generated.read(index), reference.read(searched[int(where)])]
        caption = f"{generated.name(index)} / {reference.name(searched[int(where)])}, distance {distance:.2f}"
        figures.append(_picture(_grid(pair, smallest=64), caption))
    scope = (
        f"sample left, nearest of {len(searched)} of {len(reference)} reference images right (grey, 32 x 32)"
    )
    return f"<p>{scope}</p>{''.join(figures)}"


def _thumbnails(images: PictureSet, indices: Sequence[int]) -> torch.Tensor:
    small = [
        Image.fromarray(images.read(i)).convert("L").resize((32, 32), Image.Resampling.BOX) for i in indices
    ]
    return torch.from_numpy(np.stack([np.asarray(image, np.float32) / 255 for image in small])).flatten(1)


def read_metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Curves of a run's metrics.jsonl: name -> (step, value); torn last lines and text are passed over."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in read_bytes(path).decode("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, Mapping) or not isinstance(row.get("step"), int):
            continue
        for name, value in row.items():
            usable = isinstance(value, int | float) and math.isfinite(value) and name != "step"
            if usable:
                curves.setdefault(name, []).append((float(row["step"]), float(value)))
    return curves


def _curves(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    drawn = [_curve(name, points) for name, points in curves.items() if len(points) > 1]
    return "".join(drawn) or "<p>no curve has two points</p>"


def _curve(name: str, points: Sequence[tuple[float, float]], width: int = 280, height: int = 120) -> str:
    xs, ys = zip(*points, strict=True)
    span_x, span_y = (max(values) - min(values) or 1.0 for values in (xs, ys))
    path = " ".join(
        f"{(x - min(xs)) / span_x * width:.1f},{height - (y - min(ys)) / span_y * height:.1f}"
        for x, y in points
    )
    line = f'<polyline points="{path}" fill="none" stroke-width="1.5"/>'
    caption = f"{html.escape(name)}: {number(ys[0])} to {number(ys[-1])}, steps {xs[0]:.0f} to {xs[-1]:.0f}"
    box = f'viewBox="0 -4 {width} {height + 8}" width="{width}" height="{height + 8}"'
    return f"<figure><svg {box}>{line}</svg><figcaption>{caption}</figcaption></figure>"
