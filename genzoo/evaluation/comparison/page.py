"""A comparison as one HTML page that fetches nothing: light and dark, wide and narrow.

Whatever came from data (labels, names, notes) goes through `html.escape`; plots are pictures, not markup.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from genzoo.evaluation.comparison.plots import Plot
from genzoo.evaluation.comparison.rows import Row, Table, better
from genzoo.evaluation.comparison.text import MANY, RULE, missing_unguided, said, sampled_lines
from genzoo.evaluation.facts import facts_apart, grouped_lines
from genzoo.evaluation.tables import interval_text, number, shortened

MADE_BY = '<meta name="generator" content="genzoo compare">'
INTERVALS = (
    "<p class=lead>In brackets, and as bars below: where another draw of as many samples would fall, the"
    " reference and the training run held fixed.</p>"
)
EPOCHS = (
    "<p class=lead>Pictures seen over the size of the training set, at the first evaluation during training"
    " that reaches the value and that the next one confirms. The name says the measure, how many samples,"
    " guidance and weights; &gt; means never, up to there.</p>"
)
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
    sources = dict.fromkeys(row.source or row.label for table in tables for row in table.rows)
    title = html.escape(" · ".join(sources))
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
    parts += map(_note, missing_unguided(table))
    parts.append(_details("How samples were made differently", sampled_lines(table)))
    own = {row.label: [*row.result.differences, *row.result.warnings] for row in table.rows}
    parts.append(_details("Departures from the protocol, and warnings", grouped_lines(own)))
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
    """Metrics down and rows across, then what the rows differ in; of many rows the other way round."""
    apart, common = facts_apart([row.result for row in table.rows])
    columns = [["", *(_breakable(row.label) for row in table.rows)]]
    for metric in table.metrics():
        wanted = better(metric)
        said = f' <span class="better">{wanted} is better</span>' if wanted else ""
        columns.append([_breakable(metric) + said, *(_value(row, metric) for row in table.rows)])
    columns += [[html.escape(fact), *map(html.escape, words)] for fact, words in apart.items()]
    if len(table.rows) > MANY:
        columns = [list(row) for row in zip(*columns, strict=True)]
    shared = html.escape("; ".join(f"{fact} {words}" for fact, words in common.items()))
    below = f"<p class=lead>{'All: ' if len(table.rows) > 1 else ''}{shared}.</p>" if shared else ""
    return f"{_table(columns[0], columns[1:])}{below}{INTERVALS if _ranged(table) else ''}"


def _breakable(text: str) -> str:
    """Escaped; a line may end behind an underscore."""
    return html.escape(text).replace("_", "_<wbr>")


def _ranged(table: Table) -> bool:
    return any(interval_text(one) for row in table.rows for one in row.result.intervals.values())


def _table(head: Sequence[str], body: Sequence[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """Cells are markup already.   kinds: a class for each row."""
    lines = []
    for index, (first, *others) in enumerate(body):
        kind = f' class="{kinds[index]}"' if kinds and kinds[index] else ""
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        lines.append(f"<tr{kind}><th scope=row>{first}</th>{cells}</tr>")
    titles = "".join(f"<th scope=col>{title}</th>" for title in head)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"<div class=scroll>{table}</div>"


def _value(row: Row, metric: str) -> str:
    interval = interval_text(row.result.intervals.get(metric))
    below = f"<small>{html.escape(interval)}</small>" if interval else ""
    return f"{number(row.result.metrics.get(metric))}{below}"


def _verdicts(table: Table) -> str:
    """Each metric, the row that is compared, what follows, the difference with its interval, and p."""
    body, kinds = [], []
    for one in table.verdicts:
        apart = one.difference
        interval = f"[{number(apart.low)}, {number(apart.high)}]"
        how = "same seeds, by pairs" if apart.paired else "independent"
        body.append(
            [
                f"{_breakable(one.metric)}<small>{_breakable(one.second)}</small>",
                f"<span class=said>{_breakable(said(one))}</span>",
                f"{number(apart.value)}<small>{interval}</small>",
                f"{_small(apart.p_value)}<small>{how}</small>",
            ]
        )
        kinds.append("differs" if one.differs else "")
    return _table(["", "<span class=said>what follows</span>", "difference", "p"], body, kinds)


def _small(p_value: float) -> str:
    return "&lt; 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


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
        drawn.append(
            f'<text x="0" y="{y - 9}">{html.escape(shortened(row.label, 46))}</text>'
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
    body = [
        [_breakable(name), *(html.escape(each.get(label, "-")) for label in labels)]
        for name, each in reached.items()
    ]
    return _table(["", *map(html.escape, labels)], body) + EPOCHS


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
