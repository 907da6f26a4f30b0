"""A comparison as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from genzoo.evaluation.comparison.rows import Table, Verdict, higher_is_better
from genzoo.evaluation.tables import interval_text, number, text_table

RULE = (
    "different: 0 lies outside the interval of the difference, over samples and not over training runs;"
    " p-values of one metric by Holm's correction"
)


def comparison_text(tables: Sequence[Table]) -> str:
    """Every protocol's table: metrics down, rows across, then what differs for certain, and how made."""
    return "\n\n".join(_table_text(table) for table in tables)


def _table_text(table: Table) -> str:
    header = [table.protocol, *(row.label for row in table.rows)]
    lines = []
    for metric in table.metrics():
        arrow = "up" if higher_is_better(metric) else "down"
        lines.append([f"{metric} ({arrow})", *(cell(table, row, metric) for row in range(len(table.rows)))])
    parts = [text_table(header, lines)]
    parts += [f"not compared: {a} and {b}: {one}" for (a, b), each in table.judged.items() for one in each]
    parts += [
        f"sampled differently: {a} and {b}: {one}" for (a, b), each in table.sampled.items() for one in each
    ]
    parts += [verdict_text(one) for one in table.verdicts]
    parts += [
        f"{row.label} differs from {table.protocol}: {one}"
        for row in table.rows
        for one in row.result.differences
    ]
    return "\n".join([*parts, RULE] if table.verdicts else parts)


def cell(table: Table, row: int, metric: str) -> str:
    """A value and its interval."""
    result = table.rows[row].result
    value, interval = number(result.metrics.get(metric)), interval_text(result.intervals.get(metric))
    return f"{value} {interval}".strip()


def verdict_text(one: Verdict) -> str:
    """A difference with its interval, and what follows from it."""
    apart = one.difference
    how = "same seeds, by pairs" if apart.paired else "independent"
    return (
        f"{one.metric}: {one.second} less {one.first} {number(apart.value)}"
        f" [{number(apart.low)}, {number(apart.high)}] ({how}): {said(one)}"
    )


def said(one: Verdict) -> str:
    """What follows from a difference and its interval."""
    better = one.second if (one.difference.value > 0) == higher_is_better(one.metric) else one.first
    return f"different, {better} is better" if one.differs else "no difference shown"
