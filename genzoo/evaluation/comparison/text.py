"""A comparison as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genzoo.evaluation.comparison.rows import Table, Verdict, better, higher_is_better
from genzoo.evaluation.facts import facts_apart, grouped_lines
from genzoo.evaluation.result import EvaluationResult
from genzoo.evaluation.tables import interval_text, number, text_table

MANY = 4  # rows that stand side by side in a terminal
RULE = (
    "different: 0 lies outside the interval of the difference, over samples and not over training runs;"
    " p-values of one metric by Holm's correction"
)


def comparison_text(tables: Sequence[Table]) -> str:
    """Every protocol's table: metrics down, rows across, then what differs for certain, and how made."""
    return "\n\n".join(_table_text(table) for table in tables)


def _table_text(table: Table) -> str:
    parts = [_numbers(table)]
    if common := facts_apart([row.result for row in table.rows])[1]:
        parts.append(f"all: {'; '.join(f'{name} {words}' for name, words in common.items())}")
    parts += [f"not compared: {a} and {b}: {one}" for (a, b), each in table.judged.items() for one in each]
    parts += [f"sampled differently from {line}" for line in sampled_lines(table)]
    parts += [verdict_text(one) for one in table.verdicts]
    departures = grouped_lines({row.label: row.result.differences for row in table.rows})
    parts += [f"differs from {table.protocol}, {line}" for line in departures]
    parts += [*missing_unguided(table), *([RULE] if table.verdicts else [])]
    return "\n".join(parts)


def _numbers(table: Table) -> str:
    """Metrics down and rows across; of many rows the other way round."""
    apart, _ = facts_apart([row.result for row in table.rows])
    columns = [[table.protocol, *(row.label for row in table.rows)]]
    for metric in table.metrics():
        arrow = {"higher": " (up)", "lower": " (down)", None: ""}[better(metric)]
        columns.append([f"{metric}{arrow}", *(cell(table, row, metric) for row in range(len(table.rows)))])
    columns += [[name, *words] for name, words in apart.items()]
    if len(table.rows) > MANY:
        columns = [list(row) for row in zip(*columns, strict=True)]
    return text_table(columns[0], columns[1:])


def sampled_lines(table: Table) -> list[str]:
    """How samples were made unlike those of the first: "a: guidance_scale: 1.0 against 4.0 (b, c)"."""
    lines: dict[str, list[str]] = {}
    for (first, other), each in table.sampled.items():
        for one in each:
            lines.setdefault(f"{first}: {one}", []).append(other)
    return [f"{line} ({', '.join(others)})" for line, others in lines.items()]


def missing_unguided(table: Table) -> list[str]:
    """Guided results whose unguided form is neither beside them nor in the table, one line each."""
    lines = []
    for row in table.rows:
        unguided = row.result.beside.get("unguided")
        others = [is_unguided_form(other.result, row.result) for other in table.rows]
        if isinstance(unguided, Mapping) and not any(others):
            values = ", ".join(f"{name} {number(value)}" for name, value in unguided["metrics"].items())
            lines.append(f"{row.label}, unguided: {values}")
        elif unguided is not None and not any(others):
            lines.append(f"{row.label}, unguided: {unguided}; `genzoo evaluate RUN --unguided` makes it")
    return lines


def is_unguided_form(one: EvaluationResult, guided: EvaluationResult) -> bool:
    """Whether a result is of the same samples without guidance."""
    plain = [
        {key: value for key, value in result.sampling.items() if not key.startswith("guidance")}
        for result in (one, guided)
    ]
    return one.sampling.get("guidance_scale") == 1 and plain[0] == plain[1]


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
