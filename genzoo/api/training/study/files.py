"""The files of a study: NAME.json, NAME.md and NAME.svg, beside its runs or among files of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genzoo.api.training.study.definition import Study
from genzoo.api.training.study.drawing import draw
from genzoo.api.training.study.results import CellResult, as_json, as_markdown
from genzoo.api.training.study.run import PlannedCell
from genzoo.api.training.sweep import is_trial
from genzoo.core.claims import claim_folder, refuse_links, strangers
from genzoo.core.errors import UsageError
from genzoo.core.files import write_file, write_json
from genzoo.core.reading import read_record
from genzoo.core.run_folder import RunFolder

KINDS = ("json", "md", "svg")


def write_results(folder: Path, study: Study, results: Sequence[CellResult]) -> None:
    """NAME.json, NAME.md and NAME.svg."""
    write_json(folder / f"{study.name}.json", as_json(study, results))
    write_file(folder / f"{study.name}.md", as_markdown(study, results))
    write_file(folder / f"{study.name}.svg", draw(study, results))


def claim_study(study: Study, planned: Sequence[PlannedCell], folder: Path, place: Path) -> None:
    """Raise UsageError when folders hold what no study of that name left there, before anything is written.

    folder: of the runs, where those of other seeds may lie.   place: of the results, among files of others.
    """
    trials = {run.folder.name for one in planned for run in one.every}
    seeded = tuple(run.folder.name.rpartition("=")[0] + "=" for one in planned for run in one.runs)
    results = {f"{study.name}.{kind}" for kind in KINDS}

    def is_ours(path: Path) -> bool:
        others = {*strangers(path)} - trials - results
        return all(name.startswith(seeded) and is_trial(path / name) for name in others)

    claim_folder(folder, what="a study", is_ours=is_ours)
    for one in planned:
        for run in one.every:
            RunFolder(run.folder).require_own()
    refuse_links(place, results)
    known = read_record(place / f"{study.name}.json").get("study") == study.name
    if not known and any((place / name).exists() for name in results):
        raise UsageError(
            f"{place} holds files of the names {', '.join(sorted(results))} which no study left there",
            fix="name another folder with --results",
        )
