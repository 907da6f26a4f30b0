"""Options of sampling that name other runs: their tasks take the place of their folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import TakesRuns
from genzoo.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from genzoo.core.types import Task


def with_tasks(
    task: Task, options: Mapping[str, Any], *, device: torch.device | str | None
) -> dict[str, Any]:
    """The options with every run as {place: task}, on the device."""
    taking = able(task, TakesRuns)
    names = () if taking is None else taking.run_options
    return {
        key: _tasks(value, key, device) if key in names and value is not None else value
        for key, value in options.items()
    }


def _tasks(value: Any, option: str, device: torch.device | str | None) -> dict[str, Task]:
    from genzoo.api.runs.open_run import open_run
    from genzoo.api.runs.run_data import RunData

    places = list(value) if isinstance(value, (list, tuple)) else [value]
    found: dict[str, Task] = {}
    for place in places:
        run = open_run(place) if isinstance(place, (str, Path)) else able(place, RunData)
        if run is None:
            raise UsageError(f"{option} names runs, not {place!r}", fix="give folders that training left")
        name = str(place) if isinstance(place, (str, Path)) else str(run.folder)
        if name in found:
            raise UsageError(f"{option} names {name} twice")
        found[name] = run.task(device=device)
    return found
