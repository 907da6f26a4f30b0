"""Numbers of a run for its page: each with its protocol and what it depends on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import GenzooError
from genzoo.evaluation.result import EvaluationResult, is_result, load_result

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

SETTINGS = ("num", "seed", "weights", "sampler", "steps", "guidance_scale")


def results_of(folder: Path) -> list[EvaluationResult]:
    """What `genzoo evaluate` left in a run's folder, by protocol; files that are no results are not."""
    found = []
    for path in sorted((folder / "evaluation").glob("*.json")):
        try:
            if is_result(path):
                found.append(load_result(path))
        except GenzooError:
            continue
    return found


def protocol_arguments(result: EvaluationResult) -> dict[str, Any]:
    """What a number depends on, in plain values."""
    told = {**result.generated, **result.sampling}
    kept = {key: told[key] for key in SETTINGS if isinstance(told.get(key), (str, int, float, bool))}
    return {**kept, "differences": list(result.differences)} if result.differences else kept


def eval_results(results: list[EvaluationResult], *, task: str, data: str) -> list[EvalResult]:
    """The same for the hub's `model-index`: protocol as the metric's config, the rest as its arguments."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=task,
            dataset_type=data,
            dataset_name=data,
            metric_type=name,
            metric_name=name,
            metric_value=float(value),
            metric_config=result.protocol,
            metric_args={**protocol_arguments(result), **_interval(result, name)} or None,
        )
        for result in results
        for name, value in result.metrics.items()
    ]


def table(results: list[EvaluationResult]) -> str:
    """One row a number, in Markdown."""
    rows = ["| protocol | number | value | interval | made with |", "|---|---|---|---|---|"]
    for result in results:
        made = ", ".join(f"{key} {value}" for key, value in protocol_arguments(result).items())
        for name, value in result.metrics.items():
            interval = _interval(result, name)
            is_ranged = {"low", "high"} <= interval.keys()  # some methods give a standard error alone
            between = f"{interval['low']:.4g} to {interval['high']:.4g}" if is_ranged else ""
            cells = (result.protocol, name, f"{value:.4g}", between, made)
            rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows)


def _interval(result: EvaluationResult, name: str) -> dict[str, float]:
    told = result.intervals.get(name, {})
    return {
        key: float(told[key]) for key in ("low", "high", "level") if isinstance(told.get(key), (int, float))
    }
