"""What a recipe measures after training, and the page that says what a run is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import DataError
from genzoo.core.files import write_file, write_json
from genzoo.core.node import Node
from genzoo.core.reading import read_bytes, read_record
from genzoo.core.recipe_history import phases_of
from genzoo.core.registry import METRICS
from genzoo.core.wording import counted
from genzoo.training.recipe_changes import changes

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData
    from genzoo.core.types import MeasuredRun


CLASSES_MAX = 100  # that a card names


def run_report(run: MeasuredRun, metrics: Sequence[Node]) -> dict[str, dict[str, Any]]:
    """Results of each metric by name; report.json keeps them with the step and the options."""
    results, entries = {}, []
    for metric in metrics:
        results[metric.name] = result = METRICS.get(metric.name)(run, **metric.arguments)
        entries.append({"name": metric.name, "options": dict(metric.arguments), "result": result})
    content = {"step": run.step, "recipe_sha256": run.recipe.sha256, "metrics": entries}
    write_json(run.folder / "report.json", content, default=str)
    return results


def read_report(run: RunData) -> dict[str, Any]:
    """The content of report.json; empty when there is none that can be read."""
    found = read_record(run.folder / "report.json")
    entries = found.get("metrics")
    whole = isinstance(entries, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("result"), dict) and "name" in entry
        for entry in entries
    )
    return found if whole else {}


def report_is_current(run: RunData) -> bool:
    """Whether report.json was measured at the newest checkpoint of this very recipe."""
    found = read_report(run)
    return found.get("step") == run.step and found.get("recipe_sha256") == run.recipe.sha256


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Each result as 'metric: name value, name value'."""
    lines = []
    for entry in report.get("metrics", []):
        values = ", ".join(f"{key} {_short(value)}" for key, value in entry["result"].items())
        lines.append(f"{entry['name']}: {values}")
    return lines


def write_card(run: RunData, *, batch: str) -> None:
    """README.md of a run: what it is, how it was made, what came out, how to use it."""
    plan = run.plan
    assert plan.train is not None, "a card is written about a run that was trained"
    commands = _commands(run).strip() or "(from Python)"
    results = "\n".join(f"- {line}" for line in report_lines(read_report(run))) or "No report."
    environment = read_record(run.folder / "env.json")
    versions = environment.get("packages")
    versions = versions if isinstance(versions, dict) else {}
    packages = ", ".join(f"{k} {v}" for k, v in versions.items() if v)
    lines = [
        f"# {run.recipe.name}",
        f"`{plan.model.name}` on `{plan.data.name}`, {run.step} of {plan.train.steps} steps.",
        f"## How it was made\n\n```sh\n{commands}\n```",
        f"- {batch}\n- seed {plan.train.seed}, precision {plan.train.precision}"
        f"\n- on {environment.get('device')}, {environment.get('cpu')}; {packages}"
        f"\n- `recipe.yaml` is the complete recipe, sha256 of its content `{run.recipe.sha256[:16]}`"
        + _classes(run)
        + _history(run),
        f"## Results\n\n{results}",
        f"## Use\n\n```sh\ngenzoo sample {run.folder} --out samples/\ngenzoo rerun {run.folder}\n```",
    ]
    write_file(run.folder / "README.md", "\n\n".join(lines) + "\n")


def _classes(run: RunData) -> str:
    names = run.class_names(run.checkpoint())
    if not names:
        return ""
    said = ", ".join(f"{label} {name}" for label, name in enumerate(names[:CLASSES_MAX]))
    more = ", ..." if len(names) > CLASSES_MAX else ""
    return f"\n- {counted(len(names), 'class', 'classes')}, by label: {said}{more}"


def _history(run: RunData) -> str:
    phases = phases_of(run.folder, run.step)
    return "".join(
        f"\n- from step {phase.after + 1} on with {', '.join(map(str, changes(before.recipe, phase.recipe)))}"
        for before, phase in pairwise(phases)
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _commands(run: RunData) -> str:
    try:
        return read_bytes(run.folder / "command.txt").decode("utf-8", "backslashreplace")
    except DataError:
        return ""
