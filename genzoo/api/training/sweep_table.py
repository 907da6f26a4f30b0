"""What a sweep found: measures of every run, and their median and range over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genzoo.api.training.sweep import Planned, is_trial, processor_seconds
from genzoo.core.claims import claim_folder, strangers
from genzoo.core.files import write_json
from genzoo.core.reading import read_record
from genzoo.core.run_folder import RunFolder
from genzoo.evaluation.report import read_metrics

ABOUT = "sweep.json"
TAIL = 0.1  # the share of logged steps whose mean is the last loss
LOGGED = ("loss", "held_out/loss")


@dataclass
class Outcome:
    """A combination without its seed: values of each measure, one for each seed, and what failed."""

    group: str
    values: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def measures_of(folder: Path) -> dict[str, float]:
    """The numbers of a run: mean of its last losses, last held-out loss, report, processor seconds."""
    log = folder / "metrics.jsonl"
    logged = read_metrics(log) if log.is_file() else {}
    found = {name: _last(name, logged[name]) for name in LOGGED if name in logged}
    report = read_record(folder / "report.json").get("metrics", [])
    for label, metric in zip(_labels(report), report, strict=True):
        for key, value in metric.get("result", {}).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                found[f"{label}.{key}"] = float(value)
    seconds = processor_seconds(folder)
    return found | ({"processor_seconds": seconds} if seconds else {})


def _labels(report: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of metrics; one that is measured several times is told by the options in which these differ."""
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for metric in report:
        alike.setdefault(metric["name"], []).append(metric.get("options", {}))
    found = []
    for metric in report:
        options, others = metric.get("options", {}), alike[metric["name"]]
        apart = [f"{k}={v}" for k, v in options.items() if any(other.get(k) != v for other in others)]
        found.append(metric["name"] + (f"({', '.join(apart)})" if apart else ""))
    return found


def outcomes(planned: Sequence[Planned], codes: Mapping[str, int]) -> list[Outcome]:
    """One for each combination, in the order of the sweep."""
    found: dict[str, Outcome] = {}
    for one in planned:
        outcome = found.setdefault(one.trial.group, Outcome(one.trial.group))
        code = codes.get(one.folder.name)
        if code != 0:
            outcome.failed.append(f"{one.folder.name}: exit code {code}")
            continue
        for name, value in measures_of(one.folder).items():
            outcome.values.setdefault(name, []).append(value)
    return list(found.values())


def table(found: Sequence[Outcome]) -> list[str]:
    """For a terminal: a row for each combination, a column for each measure, median (lowest to highest)."""
    names = list(dict.fromkeys(name for outcome in found for name in outcome.values))
    rows = [
        ["", *names],
        *([one.group, *(_cell(one.values.get(name, [])) for name in names)] for one in found),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return lines + [f"failed: {text}" for one in found for text in one.failed]


def claim_sweep(folder: Path, planned: Sequence[Planned]) -> None:
    """Raise UsageError when the folder, or one in it, holds what neither sweep nor run left there."""
    trials = {one.folder.name for one in planned}

    def is_ours(path: Path) -> bool:
        return is_sweep(path) or all(name in trials or is_trial(path / name) for name in strangers(path))

    claim_folder(folder, what="a sweep", is_ours=is_ours)
    for one in planned:
        RunFolder(one.folder).require_own()


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds what `write_sweep` wrote."""
    return {"recipe", "fixed", "runs"} <= read_record(folder / ABOUT).keys()


def write_sweep(
    folder: Path, recipe: str, planned: Sequence[Planned], codes: Mapping[str, int]
) -> dict[str, Any]:
    """sweep.json: settings, exit code and measures of every run."""
    runs = [
        {
            "folder": one.folder.name,
            "settings": dict(one.trial.varied),
            "exit_code": codes.get(one.folder.name),
            "measures": measures_of(one.folder),
        }
        for one in planned
    ]
    content = {"recipe": recipe, "fixed": list(planned[0].trial.fixed), "runs": runs}
    write_json(folder / ABOUT, content)
    return content


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle = f"{statistics.median(values):.4g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.4g} to {max(values):.4g})"


def _last(name: str, points: Sequence[tuple[float, float]]) -> float:
    count = max(1, round(TAIL * len(points))) if name == "loss" else 1
    return statistics.fmean(value for _, value in points[-count:])
