"""The checkpoint with the best value of a metric, kept in best/ whatever keep_last says; and results by step.

evaluation/step_00001000.json    what was measured at a step
best/best.json                   which checkpoint of best/ it is, by which metric
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import DataError, GenzooError, UsageError
from genzoo.core.files import set_aside, write_folder, write_json
from genzoo.core.reading import read_record
from genzoo.evaluation.result import EvaluationResult, load_result

if TYPE_CHECKING:
    from genzoo.api.recipes.sections import Evaluation

logger = logging.getLogger(__name__)
RESULTS, BEST, ABOUT = "evaluation", "best", "best.json"
_STEP = re.compile(r"step_(\d{8,})(?:\.json|\.terms\.safetensors)?")


def result_file(folder: Path, step: int) -> Path:
    """Where the result of a step is kept."""
    return folder / RESULTS / f"step_{step:08d}.json"


def read_result(folder: Path, step: int) -> EvaluationResult | None:
    """The result of a step; None for one that has to be measured, again if its file is damaged."""
    try:
        return load_result(result_file(folder, step))
    except DataError:
        return None


def keep_best(
    folder: Path, checkpoint: Path | None, step: int, chosen: Evaluation, metrics: Mapping[str, float]
) -> bool:
    """Copy the checkpoint to best/ when its metric is the best so far; returns whether it was.

    best/best.json says which; files are linked, not copied, where the file system allows it.
    """
    name = str(chosen.keep_best)
    if name not in metrics:
        raise UsageError(
            f"evaluation.keep_best: there is no metric {name!r}", why=f"measured: {', '.join(metrics)}"
        )
    if not is_best(folder, chosen, metrics):
        return False
    if checkpoint is None or not checkpoint.name.endswith(f"{step:08d}"):
        raise GenzooError(f"step {step} was judged but has no checkpoint to keep")
    target, source = folder / BEST / checkpoint.name, checkpoint
    write_folder(
        target,
        lambda part: shutil.copytree(source, part, copy_function=_link_or_copy, dirs_exist_ok=True),
        existing="replace",
    )
    _tell(folder, name, metrics[name], target)
    logger.info("best so far: %s %.4g at step %d, kept in %s", name, metrics[name], step, target)
    return True


def best_is_told(folder: Path, chosen: Evaluation) -> bool:
    """Whether best.json tells of the checkpoint in best/, alone, by this metric or by another one."""
    about, kept = read_record(folder / BEST / ABOUT), _by_step(folder / BEST)
    if about and about.get("metric") != chosen.keep_best:
        return True
    return [path.name for path in kept] == ([about["checkpoint"]] if "checkpoint" in about else [])


def tell_best(folder: Path, chosen: Evaluation) -> None:
    """Write best.json anew from what is in best/ where a kill came before it; the best one stays, alone."""
    if best_is_told(folder, chosen):
        return
    name, values = str(chosen.keep_best), {}
    for path in _by_step(folder / BEST):
        result = read_result(folder, _step_of(path))
        if result is not None and _is_number(result.metrics.get(name)):
            values[path] = result.metrics[name]
    if values:
        sign = 1 if chosen.lower_is_better() else -1
        target = min(values, key=lambda path: sign * values[path])  # the oldest of equals
        _tell(folder, name, values[target], target)


def _tell(folder: Path, name: str, value: float, target: Path) -> None:
    about = {"metric": name, "value": value, "step": _step_of(target), "checkpoint": target.name}
    write_json(folder / BEST / ABOUT, about)
    for old in _by_step(folder / BEST):
        if old != target:
            shutil.rmtree(old)


def is_best(folder: Path, chosen: Evaluation, metrics: Mapping[str, float]) -> bool:
    """Whether metrics are better than those of the checkpoint in best/, or there is none."""
    name = str(chosen.keep_best)
    known, sign = _known(folder, name), 1 if chosen.lower_is_better() else -1
    return known is None or sign * metrics[name] < sign * known


def set_results_aside(folder: Path, step: int) -> list[Path]:
    """Rename results and a best checkpoint of steps after `step`: the branch they belong to was left.

    They neither count nor get in the way; the steps are judged again when the run comes to them.
    """
    late = [path for path in _by_step(folder / RESULTS) if _step_of(path) > step]
    best = [path for path in _by_step(folder / BEST) if _step_of(path) > step]
    moved = [set_aside(path) for path in (*late, *best)]
    if best and _kept_step(folder) not in {_step_of(path) for path in _by_step(folder / BEST)}:
        about = folder / BEST / ABOUT
        moved += [set_aside(about)] if about.exists() else []
    if moved:
        text = "measured after step %d by a branch that was left, set aside: %s"
        logger.warning(text, step, ", ".join(path.name for path in moved))
    return moved


def _known(folder: Path, name: str) -> float | None:
    """The value of the best so far; of a damaged best.json, that of the checkpoint which is kept."""
    about = read_record(folder / BEST / ABOUT)
    kept = folder / BEST / str(about.get("checkpoint"))
    if about.get("metric") == name and _is_number(about.get("value")) and kept.is_dir():
        return float(about["value"])
    if about and about.get("metric") != name:
        return None  # another measure: the values say nothing about each other
    found = [read_result(folder, _step_of(path)) for path in _by_step(folder / BEST)]
    values = [result.metrics.get(name) for result in found if result is not None]
    numbers = [value for value in values if _is_number(value)]
    return float(numbers[-1]) if numbers else None  # type: ignore[arg-type]


def _kept_step(folder: Path) -> int | None:
    step = read_record(folder / BEST / ABOUT).get("step")
    return step if isinstance(step, int) else None


def _by_step(folder: Path) -> list[Path]:
    """What is named after a step in a folder, oldest first."""
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    return sorted((path for path in names if _STEP.fullmatch(path.name)), key=_step_of)


def _step_of(path: Path) -> int:
    match = _STEP.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
