"""What a study came to: the numbers of every cell, and each sentence of the paper beside them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genzoo.api.training.study.definition import Claim, Study
from genzoo.api.training.study.run import PlannedCell
from genzoo.api.training.sweep_grid import SEED
from genzoo.api.training.sweep_table import measures_of
from genzoo.core.reading import read_record


@dataclass(frozen=True)
class CellResult:
    """values: of each measure, by its heading, one for each seed that was run.   seeds: those.

    recipe: the hash of the cell's recipe, whatever the seed.
    """

    name: str
    seeds: Sequence[str]
    values: Mapping[str, Sequence[float]]
    recipe: str = ""


def results_of(study: Study, planned: Sequence[PlannedCell], kept: Path | None = None) -> list[CellResult]:
    """Of every cell, what its finished runs measured.

    kept: a file of earlier results, for cells that have no run here and have not changed since.
    """
    before = {
        cell["name"]: CellResult(**cell)
        for cell in (read_record(kept) if kept else {}).get("cells", [])
        if list(cell["values"]) == list(study.measures)
    }
    found = []
    for one in planned:
        finished = [run for run in one.runs if run.is_finished()]
        measured = [measures_of(run.folder) for run in finished]
        values = {
            heading: [numbers[name] for numbers in measured if name in numbers]
            for heading, name in study.measures.items()
        }
        seeds = [dict(run.trial.varied)[SEED] for run in finished]
        own = one.runs[0].recipe.replaced({SEED: 0}, "every seed").sha256
        earlier = before.get(one.cell.name)
        stays = not finished and earlier is not None and earlier.recipe == own
        found.append(earlier if stays and earlier else CellResult(one.cell.name, seeds, values, own))
    return found


def said(claim: Claim, results: Sequence[CellResult]) -> str:
    """Whether it came out so here: yes or no where the ranges over seeds lie apart, else undecided."""
    by_name = {result.name: result for result in results}
    better = by_name[claim.better].values.get(claim.by, [])
    other = by_name[claim.than].values.get(claim.against or claim.by, [])
    if not better or not other:
        return "not run"
    numbers = f"{spread(better)} beside {spread(other)}"
    if min(len(better), len(other)) == 1:
        ahead = _median(better) < _median(other) if claim.lower else _median(better) > _median(other)
        return f"{'yes' if ahead else 'no'}, by one seed: {numbers}"
    if claim.lower:
        better, other = [-value for value in better], [-value for value in other]
    if min(better) > max(other):
        return f"yes: {numbers}"
    return f"no: {numbers}" if max(better) < min(other) else f"undecided, the ranges overlap: {numbers}"


def spread(values: Sequence[float]) -> str:
    """Median, with the lowest and the highest of several."""
    if not values:
        return "not run"
    middle = _short(_median(values))
    return middle if len(values) == 1 else f"{middle} ({_short(min(values))} to {_short(max(values))})"


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def as_markdown(study: Study, results: Sequence[CellResult]) -> str:
    """The paper beside these runs: a table of cells, a list of sentences, and what was found."""
    papers = list(dict.fromkeys(heading for cell in study.cells for heading in cell.paper))
    heads = ["", "what", *(f"paper: {heading}" for heading in papers), *study.measures, "seeds"]
    rows = [heads, ["---"] * len(heads)]
    for cell, result in zip(study.cells, results, strict=True):
        printed = [str(cell.paper.get(heading, "")) for heading in papers]
        numbers = [spread(result.values[heading]) for heading in study.measures]
        rows.append([f"`{cell.name}`", cell.about, *printed, *numbers, ", ".join(result.seeds) or "none"])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    claims = [f"- {claim.says}. Here: {said(claim, results)}" for claim in study.claims]
    parts = [
        f"## {study.title}",
        f"`genzoo sweep studies/{study.name}.yaml`, from recipe `{study.recipe}`. Paper: {study.paper}.",
        "Here: median (lowest to highest) over seeds.\n\n" + "\n".join(lines),
        *(["The paper says, and here:\n\n" + "\n".join(claims)] if claims else []),
        *([study.found] if study.found else []),
    ]
    return "\n\n".join(parts) + "\n"


def as_json(study: Study, results: Sequence[CellResult]) -> dict[str, Any]:
    """The same as data."""
    return {
        "study": study.name,
        "paper": study.paper,
        "cells": [asdict(result) for result in results],
        "claims": [{"says": claim.says, "here": said(claim, results)} for claim in study.claims],
    }
