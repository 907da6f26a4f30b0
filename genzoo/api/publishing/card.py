"""README.md of a repository: what the model is, how it was made, what was measured, how it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genzoo.api.publishing.portable import is_place
from genzoo.api.publishing.results import eval_results, results_of, table
from genzoo.api.runs.run_report import read_report, report_lines
from genzoo.core.contracts.tasks import makes_clips
from genzoo.core.errors import UsageError
from genzoo.core.registry import MODELS
from genzoo.core.signatures import parameters
from genzoo.core.wording import counted

if TYPE_CHECKING:
    from genzoo.api.publishing.content import Content
    from genzoo.api.runs.run_data import RunData
    from genzoo.core.types import Task

CLASSES_MAX = 50


def card(run: RunData, task: Task, content: Content, *, repository: str, licence: str) -> str:
    """The page with the header that the hub reads. Raises UsageError when that is not read back alike."""
    from huggingface_hub import ModelCardData

    results = results_of(run.folder)
    tag = _tag(task)
    data = ModelCardData(
        license=licence,
        library_name="genzoo",
        pipeline_tag=tag,
        tags=["genzoo", plain(run.plan.model.name), *(["diffusers"] if content.kind != "weights" else [])],
        model_name=plain(run.recipe.name),
        eval_results=eval_results(results, task=tag or "video-generation", data=plain(run.plan.data.name)),
    )
    header = f"---\n{data.to_yaml()}\n---\n"
    _require_read_back(header, data)
    sections = [
        f"# {plain(run.recipe.name)}",
        *(f"![Samples]({name})" for name in content.samples[:1]),
        _made(run),
        f"## Results\n\n{table(results) if results else _reported(run)}",
        f"## Use\n\n{_use(run, content, repository)}",
        f"## Limits\n\n{_limits(run, bool(results), licence)}",
    ]
    return header + "\n" + "\n\n".join(sections) + "\n"


def plain(text: object) -> str:
    """A text of others without marks that Markdown or HTML would read, and without control characters."""
    kept = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return re.sub(r"[<>\[\]|`*#&\\]", "", kept).strip()[:200] or "unnamed"


def _tag(task: Task) -> str | None:
    """What the hub calls the kind of task; it has no name for clips of classes."""
    asks = parameters(task.conditions)
    if any("prompt" in name for name in asks):
        return "text-to-image"
    if makes_clips(task):
        return None
    return "image-to-image" if "image" in asks or "control" in asks else "unconditional-image-generation"


def _made(run: RunData) -> str:
    plan = run.plan
    lines = [f"`{plain(plan.model.name)}`: {MODELS.entry(plan.model.name).help}."]
    if plan.train is not None:
        train = plan.train
        lines.append(
            f"Trained with genzoo for {run.step} of {train.steps} steps of {train.batch_size} samples;"
            f" seed {train.seed}, precision {train.precision}."
        )
    lines.append(
        f"Data: `{plain(plan.data.name)}`. `recipe.yaml` is the whole recipe; `???` stands for what lay on"
        " the machine of the training."
    )
    names = run.class_names(run.checkpoint())
    if names:
        said = ", ".join(f"{label} {plain(name)}" for label, name in enumerate(names[:CLASSES_MAX]))
        more = ", ..." if len(names) > CLASSES_MAX else ""
        lines.append(f"{counted(len(names), 'class', 'classes')}, by label: {said}{more}.")
    return "## Model and training\n\n" + "\n\n".join(lines)


def _reported(run: RunData) -> str:
    lines = [f"- {plain(line)}" for line in report_lines(_without_places(read_report(run)))]
    said = "Nothing was measured by a protocol of `genzoo evaluate`."
    if not lines:
        return said
    return f"{said} The recipe's own report at the end of training:\n\n" + "\n".join(lines)


def _without_places(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report without the files that it names on this machine."""
    return {
        "metrics": [
            {
                "name": entry["name"],
                "result": {
                    key: value
                    for key, value in entry["result"].items()
                    if not (isinstance(value, str) and is_place(value))
                    and not isinstance(value, (dict, list))
                },
            }
            for entry in report.get("metrics", [])
        ]
    }


def _use(run: RunData, content: Content, repository: str) -> str:
    from genzoo.api.pipelines.files import pipeline_name

    parts = [
        f"```sh\npip install genzoo\ngenzoo sample hf://{repository} --num 16\n```",
        f'```python\nimport genzoo\n\nrun = genzoo.from_pretrained("{repository}")\n'
        "run.sample(num=4).grid()\n```",
    ]
    if content.kind == "pipeline":
        name = pipeline_name(run)
        parts.append(
            "In diffusers, with genzoo installed; the second form runs two files of one import each:\n\n"
            f"```python\nfrom genzoo.pipelines import {name}\n\n"
            f'pipe = {name}.from_pretrained("{repository}")\n\n'
            "from diffusers import DiffusionPipeline\n\n"
            f'pipe = DiffusionPipeline.from_pretrained("{repository}", trust_remote_code=True)\n```'
        )
    if content.kind == "concept":
        base, how = (
            run.plan.model.arguments.get("base_model"),
            "\n".join(f"- {plain(x)}" for x in content.how),
        )
        parts.append(f"For diffusers, the files in `diffusers/`:\n\n{how}")
        parts.append(f"It belongs to the base `{plain(_public(base))}`.")
    return "\n\n".join(parts)


def _public(base: Any) -> str:
    return "of its training, which is not named here" if is_place(str(base)) else str(base)


def _limits(run: RunData, measured: bool, licence: str) -> str:
    plan = run.plan
    lines = [
        "It makes what its data show, with their gaps and their bias; nobody has looked at every sample.",
    ]
    if plan.train is not None and run.step < plan.train.steps:
        lines.append(f"Training stopped at step {run.step} of {plan.train.steps}.")
    if not measured:
        lines.append("Quality was not measured by a named protocol.")
    if licence == "unknown":
        lines.append(
            "The licence was not stated: ask before you use it. The licence of the data holds as well."
        )
    return "\n".join(f"- {line}" for line in lines)


def _require_read_back(header: str, data: Any) -> None:
    from huggingface_hub import ModelCard

    read = ModelCard(header, ignore_metadata_errors=False).data
    if str(read) != str(data):  # the YAML of both
        raise UsageError("the page's header is not read back as it was written", fix="rename the run")
