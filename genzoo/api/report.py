"""What a recipe measures after training, and the page that says what a run is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genzoo.api.samples import write_atomically
from genzoo.core.registry import METRICS

if TYPE_CHECKING:
    from genzoo.api.run import Run


def run_report(run: Run, metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Results of each metric section by name, added to report.json together with the step they belong to."""
    results = {}
    for section in metrics:
        options = dict(section)
        name = options.pop("name")
        results[name] = {**METRICS.get(name)(run, **options), **({"options": options} if options else {})}
    path = run.folder / "report.json"
    content = json.dumps({"step": run.step, "metrics": results}, indent=2, default=str) + "\n"
    write_atomically(path, content.encode())
    return results
