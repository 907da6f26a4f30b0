"""A comparison as one HTML page that fetches nothing: light and dark, wide and narrow.

Whatever came from data (labels, names, notes) goes through `html.escape`; plots are pictures, not markup.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from genzoo.evaluation.comparison.plots import Plot
from genzoo.evaluation.comparison.rows import Row, Table, higher_is_better
from genzoo.evaluation.comparison.text import RULE, said
from genzoo.evaluation.tables import interval_text, number

MADE_BY = '<meta name="generator" content="genzoo compare">'
STYLE = Path(__file__).with_name("style.css")


def build_page(
    tables: Sequence[Table],
    *,
    plots: Sequence[Plot] = (),
    grids: Mapping[str, bytes] | None = None,
    reached: Mapping[str, Mapping[str, str]] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The page.   grids: label -> PNG of its first samples.   reached: EP@k -> label -> epochs."""
    labels = list(dict.fromkeys(row.label for table in tables for row in table.rows))
    title = html.escape(" · ".join(labels))
    parts = [f"<h1>Comparison</h1><p class=lead>{title}</p>", *map(_note, notes)]
    for table in tables:
        parts.append(_section(table))
    if reached:
        parts.append(f"<h2>Epochs until a value is reached</h2>{_reached(reached)}")
    if plots:
        parts.append(f"<h2>Plots</h2><div class=plots>{''.join(_figure(plot) for plot in plots)}</div>")
    if grids:
        parts.append(f"<h2>Samples of the same seeds</h2><div class=samples>{_grids(grids)}</div>")
    foot = html.escape(RULE)
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8">{MADE_BY}'
    head += '<meta name="viewport" content="width=device-width,initial-scale=1">'
    head += f"<title>{title}</title><style>{STYLE.read_text()}</style></head>"
    return f"{head}<body>{''.join(parts)}<footer>{foot}</footer></body></html>\n"


def _note(text: str) -> str:
    return f"<div class=note>{html.escape(text)}</div>"


def _section(table: Table) -> str:
    notes = [f"not compared: {a} and {b}: {one}" for (a, b), each in table.judged.items() for one in each]
    parts = [f"<h2>{html.escape(table.protocol)}</h2>", _numbers(table), *map(_note, notes)]
    parts.append(f"<div class=forests>{''.join(_forest(table, name) for name in table.metrics())}</div>")
    if table.verdicts:
        parts.append(f"<h3>Differences from {html.escape(table.verdicts[0].first)}</h3>{_verdicts(table)}")
    made = [f"{a} and {b}: {one}" for (a, b), each in table.sampled.items() for one in each]
    parts.append(_details("How samples were made differently", made))
    own = [
        f"{row.label}: {one}" for row in table.rows for one in [*row.result.differences, *row.result.warnings]
    ]
    parts.append(_details("Departures from the protocol, and warnings", own))
    parts.append(_details("What every number depends on", [_stated(row) for row in table.rows]))
    return "".join(parts)


def _stated(row: Row) -> str:
    result = row.result
    methods = {name: one.get("method") for name, one in result.intervals.items()}
    stated = {"sampling": result.sampling, "generated": result.generated, "reference": result.reference}
    stated |= {"network": result.network, "intervals": methods}
    return f"{row.label}: " + "; ".join(f"{name} {dict(value)}" for name, value in stated.items())


def _details(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<details><summary>{html.escape(title)} ({len(lines)})</summary><ul>{items}</ul></details>"


def _numbers(table: Table) -> str:
    head = "".join(f"<th scope=col>{html.escape(row.label)}</th>" for row in table.rows)
    body = ""
    for metric in table.metrics():
        better = "higher is better" if higher_is_better(metric) else "lower is better"
        cells = "".join(_cell(row, metric) for row in table.rows)
        name = f'{html.escape(metric)} <span class="better">{better}</span>'
        body += f"<tr><th scope=row>{name}</th>{cells}</tr>"
    return (
        f"<div class=scroll><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(row: Row, metric: str) -> str:
    interval = interval_text(row.result.intervals.get(metric))
    below = f"<small>{html.escape(interval)}</small>" if interval else ""
    return f"<td>{number(row.result.metrics.get(metric))}{below}</td>"


def _verdicts(table: Table) -> str:
    """Each metric, the row that is compared, the difference with its interval, and what follows."""
    body = ""
    for one in table.verdicts:
        apart, kind = one.difference, " class=differs" if one.differs else ""
        interval = f"[{number(apart.low)}, {number(apart.high)}]"
        how = "by pairs" if apart.paired else "independent"
        body += (
            f"<tr{kind}><th scope=row>{html.escape(one.metric)}<small>{html.escape(one.second)}</small></th>"
            f"<td>{number(apart.value)}<small>{interval}</small></td><td>{number(apart.p_value)}"
            f"<small>{how}</small></td><td>{html.escape(said(one))}</td></tr>"
        )
    head = "<th scope=col>less the first</th><th scope=col>p</th><th scope=col></th>"
    return (
        f"<div class=scroll><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _forest(table: Table, metric: str) -> str:
    """Intervals of one metric on one scale; nothing where no row has one."""
    found = [(row, row.result.intervals.get(metric)) for row in table.rows if metric in row.result.metrics]
    ranged = [(row, one["low"], one["high"]) for row, one in found if one and one.get("low") is not None]
    if not ranged:
        return ""
    low, high = min(one[1] for one in ranged), max(one[2] for one in ranged)
    span, width, drawn = (high - low) or 1.0, 300, []
    for line, (row, start, end) in enumerate(ranged):
        y = 26 + 32 * line
        left, middle, right = (
            6 + (value - low) / span * width for value in (start, row.result.metrics[metric], end)
        )
        label = row.label if len(row.label) <= 46 else f"{row.label[:22]}…{row.label[-22:]}"
        drawn.append(
            f'<text x="0" y="{y - 9}">{html.escape(label)}</text>'
            f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{middle:.1f}" cy="{y}" r="3.5"/>'
        )
    y = 32 * len(ranged) + 16
    drawn.append(f'<text class="axis" x="6" y="{y}">{number(low)}</text>')
    drawn.append(f'<text class="axis" x="{width + 6}" y="{y}" text-anchor="end">{number(high)}</text>')
    name = html.escape(metric)
    return (
        f'<div class=forest><strong>{name}</strong><svg viewBox="0 0 312 {y + 6}" role="img"'
        f' aria-label="{name}: intervals">{"".join(drawn)}</svg></div>'
    )


def _reached(reached: Mapping[str, Mapping[str, str]]) -> str:
    labels = list(dict.fromkeys(label for each in reached.values() for label in each))
    head = "".join(f"<th>{html.escape(label)}</th>" for label in labels)
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(each.get(label, '-'))}</td>" for label in labels)
        + "</tr>"
        for name, each in reached.items()
    )
    return (
        f"<div class=scroll><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _figure(plot: Plot) -> str:
    light, dark = (_data("svg+xml", content) for content in (plot.svg, plot.dark_svg))
    name = html.escape(plot.title)
    return (
        f'<figure class="{"wide" if plot.wide else "half"}"><picture>'
        f'<source media="(prefers-color-scheme:dark)" srcset="{dark}">'
        f'<img alt="{name}" src="{light}"></picture></figure>'
    )


def _grids(grids: Mapping[str, bytes]) -> str:
    return "".join(
        f'<figure><img alt="samples of {html.escape(label)}" src="{_data("png", content)}">'
        f"<figcaption>{html.escape(label)}</figcaption></figure>"
        for label, content in grids.items()
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
