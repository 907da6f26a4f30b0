"""The folder of a pipeline: which files it has, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import ExportsPart
from genzoo.core.errors import WeightsError
from genzoo.core.exported import COMPONENT, CONFIG, IN_PIPELINE
from genzoo.core.files import put_file
from genzoo.core.reading import read_json
from genzoo.core.registry import MODELS, TASKS
from genzoo.pretrained.hub import is_hub_id
from genzoo.pretrained.hub_runs import here, is_hub_run

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData

INDEX = "model_index.json"
PIPELINE_STUB, MODEL_STUB = "pipeline", "genzoo_model"  # modules of one import each, for diffusers alone
PLAIN = "GenzooPipeline"
HERE = __name__.rpartition(".")[0]


def has_pipeline(run: RunData) -> bool:
    """Whether a run can be written as a pipeline: it generates, and its task has no layout of its own."""
    name = run.plan.task.name
    return "generates" in TASKS.entry(name).port and able(TASKS.get(name), ExportsPart) is None


def pipeline_name(run: RunData) -> str:
    """The name of the class that samples a run; a family that names none has the plain one."""
    return MODELS.entry(run.plan.model.name).pipeline or PLAIN


def write_index(folder: Path, pipeline: str) -> None:
    """model_index.json that names our classes by the stubs: diffusers imports no package that it names."""
    index: dict[str, Any] = read_json(folder / INDEX, "the pipeline's index", error=WeightsError)
    index |= {"_class_name": [PIPELINE_STUB, pipeline], COMPONENT: [MODEL_STUB, IN_PIPELINE]}
    (folder / INDEX).unlink()
    put_file(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


def stubs(folder: Path, pipeline: str) -> None:
    """The two modules that `trust_remote_code=True` runs."""
    lines = f"from {HERE}.classes import pipeline_class\n\n{pipeline} = pipeline_class({pipeline!r})\n"
    for place, text in (
        (folder / f"{PIPELINE_STUB}.py", lines),
        (folder / COMPONENT / f"{MODEL_STUB}.py", f"from {HERE}.model import {IN_PIPELINE}\n"),
    ):
        put_file(place, text)


def model_folder(path_or_id: str | Path, revision: str | None = None) -> Path:
    """The local folder of the model in a pipeline's folder, or of one on a hub. Raises WeightsError."""
    folder = Path(path_or_id).expanduser()
    if not folder.is_dir() and (is_hub_run(path_or_id) or is_hub_id(path_or_id)):
        address = str(path_or_id) if is_hub_run(path_or_id) else f"hf://{path_or_id}"
        folder = here(address if revision is None else f"{address}@{revision}")
    if not (folder / COMPONENT / CONFIG).is_file():
        raise WeightsError(
            f"{path_or_id} holds no pipeline of genzoo",
            why=f"it has no {COMPONENT}/{CONFIG}",
            fix="write one: genzoo export RUN FOLDER --to diffusers",
        )
    return folder / COMPONENT
