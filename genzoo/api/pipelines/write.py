"""A run as a folder that diffusers loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.api.pipelines.classes import pipeline_class
from genzoo.api.pipelines.files import has_pipeline, pipeline_name
from genzoo.api.pipelines.model import GenzooModel
from genzoo.api.runs.carried import carry_codec
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import HasCodec
from genzoo.core.errors import UsageError
from genzoo.core.exported import COMPONENT, without_data, without_start
from genzoo.core.files import write_folder
from genzoo.core.progress import doing

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.core.types import Task

WHOLE = "1000GB"  # one file, whatever its size


def export_pipeline(
    run: RunData, output: str | Path, *, weights: Weights | None = None, half: bool = False
) -> Path:
    """Write a folder that `genzoo.pipelines` and diffusers load, with weights and recipe.

    A codec whose weights lie on this machine goes along.   half: store 16-bit numbers. Raises UsageError.
    """
    if not has_pipeline(run):
        raise UsageError(f"the task {run.plan.task.name!r} has no pipeline", fix="export without --to")
    task = run.task(weights=weights, device="cpu")

    def fill(folder: Path) -> None:
        (folder / COMPONENT).mkdir()
        pipeline = pipeline_class(pipeline_name(run))(
            transformer=_module(run, task, weights, folder / COMPONENT)
        )
        if half:
            pipeline.transformer.half()
        pipeline.save_pretrained(str(folder), max_shard_size=WHOLE)

    with doing(f"writing {output}"):
        return write_folder(output, fill)


def _module(run: RunData, task: Task, weights: Weights | None, folder: Path) -> GenzooModel:
    checkpoint = run.checkpoint()
    recipe = without_data(run.recipe.data)
    coded = able(task, HasCodec)
    codec = carry_codec(run.plan.codec, None if coded is None else coded.codec, folder)
    if codec is not None:
        recipe["codec"] = codec
    classes = run.class_names(checkpoint)
    module: GenzooModel = GenzooModel(
        architecture=without_start(run.plan.model.section(), task.model),
        recipe=recipe,
        classes=None if classes is None else list(classes),
        step=run.step,
        weights=run.choose(checkpoint, weights),
    )
    module.model.load_state_dict(task.model.state_dict())
    return module
