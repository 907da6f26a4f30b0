"""What a number depends on: how samples were made, and what belongs beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.sampling.averages import average_of
from genzoo.api.sampling.execution import Execution
from genzoo.core.errors import DataError
from genzoo.core.reading import read_json, read_record, reason, shown
from genzoo.core.run_folder import read_metrics

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData

UNGUIDED = 1.0  # the guidance scale of every task here that changes nothing
NOT_RUN = "not run"
# of samples.json
STATED = (
    *("run", "recipe_sha256", "checkpoint", "weights", "weights_sha256", "average", "ema", "seed"),
    *("block_size", "precision", "compile", "cuda_graphs", "allow_tf32"),
)


def sampling_of(
    run: RunData, checkpoint: Path, seed: int, weights: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """How the samples of a run were made, as the result states it: every setting, the weights by name."""
    sampler, sampling = run.plan.sampler, run.plan.sampling
    chosen = {} if sampler is None else {"sampler": sampler.name, **sampler.arguments}
    described = run.described(checkpoint, weights)  # type: ignore[arg-type]
    return {
        **chosen,
        "block_size": sampling.block_size,
        **Execution.chosen(sampling).described(),
        **options,
        **described,
        "average": average_of(run.plan.train, weights, described.get("ema")),
        "seed": seed,
        "run": run.recipe.name,
        "recipe_sha256": run.recipe.sha256,
    }


def is_guided(sampling: Mapping[str, Any]) -> bool | None:
    """Whether guidance was used; None where nothing is said of it."""
    scale = sampling.get("guidance_scale")
    if not isinstance(scale, int | float) or isinstance(scale, bool):
        return None
    return scale != UNGUIDED


def beside(folder: Path, metrics_log: Path, name: str, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs beside a result of a run: its unguided form, and the held-out loss of its checkpoint.

    folder: of the run's results.   name: the protocol.   Without an unguided result, that is "not run".
    """
    found: dict[str, Any] = {}
    if is_guided(sampling):
        other = _unguided(folder, name, sampling)
        found["unguided"] = NOT_RUN if other is None else other
    loss = held_out_at(metrics_log, _step_of(sampling.get("checkpoint")))
    return found if loss is None else {**found, "held_out": loss}


def _unguided(folder: Path, name: str, sampling: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numbers of the same weights, seed and sampler without guidance."""
    wanted = {key: value for key, value in sampling.items() if not key.startswith("guidance")}
    for path in sorted(folder.glob(f"{name}-*.json")):
        content = read_record(path)
        try:
            made = dict(content["sampling"])
            numbers = {key: float(value) for key, value in content["metrics"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):  # of another program, or version
            continue
        plain = {key: value for key, value in made.items() if not key.startswith("guidance")}
        if is_guided(made) is False and plain == json.loads(json.dumps(wanted, default=str)):
            return {
                "file": path.name,
                "metrics": numbers,
                "num": dict(content.get("generated") or {}).get("num"),
            }
    return None


def held_out_at(metrics_log: Path, step: int | None) -> dict[str, float] | None:
    """The held-out losses that a run logged last at or before a step; None when it logged none."""
    if step is None or not metrics_log.is_file():
        return None
    found = None
    for record in read_metrics(metrics_log):
        losses = {
            name.removeprefix("held_out/"): float(value)
            for name, value in record.items()
            if name.startswith("held_out/") and isinstance(value, int | float) and math.isfinite(value)
        }
        if losses and int(record["step"]) <= step:
            found = {"step": float(record["step"]), **losses}
    return found


def _step_of(checkpoint: Any) -> int | None:
    digits = str(checkpoint or "").rpartition("_")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else None


def stated_sampling(source: Path) -> dict[str, Any]:
    """What samples.json in a folder of samples says about them; {} when there is none."""
    path = source / "samples.json"
    if not path.is_file():
        return {}
    fix = "mend it, or take it out of the folder"
    try:
        content = read_json(path, "it")
        options = dict(content.get("options") or {})
    except (ValueError, AttributeError, TypeError) as error:
        # DataError is a ValueError
        raise DataError(f"{shown(path)} is none of genzoo's", why=reason(error), fix=fix) from error
    return options | {name: content[name] for name in STATED if name in content}
