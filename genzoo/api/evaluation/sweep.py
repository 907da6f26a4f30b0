"""A run judged once for each value of one setting of its sampling, such as guidance or steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from genzoo.api.evaluation.evaluate_run import evaluate_run
from genzoo.api.evaluation.stated import UNGUIDED
from genzoo.core.errors import UsageError
from genzoo.evaluation.comparison.rows import Row

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData

GUIDANCE = "guidance_scale"
SHORT = {GUIDANCE: "guidance"}
REAL = (GUIDANCE, "ema")  # 1 and 1.0 are one value of these, and one folder of samples


def evaluate_sweep(
    run: RunData,
    name: str,
    values: Sequence[Any],
    *,
    told: Callable[[Any], None] = lambda value: None,
    **options: Any,
) -> list[Row]:
    """One row for each value of `name`, in their order; what was judged before is not judged again.

    options: those of `evaluate_run`.   told: called with each value as it begins. Every result stays in the
    run's evaluation/ folder, where `genzoo compare RUN` finds it. Raises UsageError for fewer than two.
    """
    values = [float(value) if name in REAL and isinstance(value, int) else value for value in values]
    if len(values) < 2 or len({str(value) for value in values}) < len(values):
        raise UsageError(f"a sweep of {name} needs two values or more, no two alike: {list(values)}")
    found = {}
    for value in sorted(values, key=lambda value: not _is_unguided(name, value)):
        told(value)
        found[str(value)] = evaluate_run(run, **options | {name: value}, again=False)
    place = run.folder / "evaluation"
    return [
        Row(
            f"{SHORT.get(name, name)} {value}",
            result,
            run.folder.name,
            place / str(result.generated["folder"]),
        )
        for value in values
        for result in [found[str(value)]]
    ]


def _is_unguided(name: str, value: Any) -> bool:
    """The value that is judged first: all others state it beside their own."""
    return name == GUIDANCE and value == UNGUIDED
