"""The tables and plots of `genzoo compare` for the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genzoo.api.evaluation.compare_runs import compare_runs, plots_of
from genzoo.core.files import write_file
from genzoo.evaluation.comparison.rows import higher_is_better
from genzoo.evaluation.comparison.text import cell, verdict_text


def compare(
    sources: list[str], folder: str, protocol: str | None = None, progress: Any = None
) -> dict[str, Any]:
    """{"tables": [{"head", "rows", "notes"}], "plots": [[path, title]], "notes": lines}."""
    found = compare_runs(sources, protocol=protocol)
    plots, missing = plots_of(found)
    drawn = [
        [str(write_file(Path(folder) / f"plot{number}.png", plot.png)), plot.title]
        for number, plot in enumerate(plots)
    ]
    return {
        "tables": [_table(table) for table in found.tables],
        "plots": drawn,
        "notes": [*found.notes, *missing],
    }


def _table(table: Any) -> dict[str, Any]:
    rows = [
        [
            f"{metric} ({'higher' if higher_is_better(metric) else 'lower'} is better)",
            *(cell(table, number, metric) for number in range(len(table.rows))),
        ]
        for metric in table.metrics()
    ]
    notes = [
        f"{a} and {b} were judged differently: {one}" for (a, b), each in table.judged.items() for one in each
    ]
    notes += [
        f"{a} and {b} were sampled differently: {one}"
        for (a, b), each in table.sampled.items()
        for one in each
    ]
    notes += [verdict_text(one) for one in table.verdicts]
    return {
        "protocol": table.protocol,
        "head": ["", *(row.label for row in table.rows)],
        "rows": rows,
        "notes": notes,
    }
