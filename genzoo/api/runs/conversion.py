"""Released weights of other projects as runs of ours, and our weights as files for others."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.recipes.plan import plan_of
from genzoo.api.runs.stored import StoredRun, open_stored
from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.claims import claim_file, claim_folder, require_utf8
from genzoo.core.contracts import able
from genzoo.core.contracts.parts import ChecksTask
from genzoo.core.contracts.tasks import ExportsForClients, ExportsPart
from genzoo.core.errors import UsageError, did_you_mean
from genzoo.core.exported import CLASSES, LAYOUT, metadata_of, read_exported, without_start
from genzoo.core.files import write_file, write_folder
from genzoo.core.model_state import frozen_digest, stored_weights
from genzoo.core.processes import World
from genzoo.core.progress import doing
from genzoo.core.recipe import load_recipe
from genzoo.core.registry import CONVERTERS
from genzoo.core.run_folder import RunFolder
from genzoo.core.tensor_stream import write_tensors
from genzoo.pretrained.recognise import recognise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.core.node import Node
    from genzoo.core.types import Conversion, Converter


GRAPHS = ("onnx", "exported", "torchscript")


def convert(
    source: str | Path,
    output: str | Path,
    *,
    recipe: str | None = None,
    layout: str | None = None,
    overrides: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> tuple[StoredRun, Conversion]:
    """Make a run folder out of a weights file, so that `load_run(output).sample(...)` works.

    recipe: supplies codec, sampler and task around the converted model; the layout names its usual one.
    layout: of CONVERTERS; recognised by content when left out.   arguments: what the tensors cannot tell;
    `part` chooses among several sets of weights in the file, by its dotted place there.
    Raises WeightsError, CheckpointError.
    """
    from genzoo.api.recipes.models import create_model
    from genzoo.pretrained.loading import load_foreign
    from genzoo.pretrained.state_dicts import narrowed

    if read_exported(Path(source)) is not None:
        raise UsageError(
            f"{source} is genzoo's own",
            fix="sample it as it is: genzoo sample FILE",
        )
    claim_folder(output, what="a run")
    with doing(f"reading {source}"):
        tree = load_foreign(source)
    told = dict(arguments or {})
    part = told.pop("part", None)
    tree = tree if part is None else narrowed(tree, str(part))
    name = layout or recognise(tree, source)
    converter: Converter = CONVERTERS.get(name)()
    conversion = converter.to_genzoo(tree, **told)
    base = load_recipe(recipe or converter.recipe, overrides)
    model = {"name": conversion.model, **conversion.arguments}
    made = base.replaced({"model": model, "name": Path(output).name}, f"converted from {Path(source).name}")
    _check_task(converter, plan_of(made, but=("data",)).task)
    built = create_model(conversion.model, **conversion.arguments)
    frozen = frozen_digest(built)
    built.load_state_dict(conversion.weights, strict=True)
    # released weights are the averaged ones: stored once, they serve as both
    state = {"converted_from": Path(source).name, "layout": name, "averaged": True, "frozen": frozen}

    def fill(part: Path) -> None:
        folder = RunFolder(part)
        folder.describe(recipe_text=made.to_yaml())
        save_checkpoint(folder.checkpoints, 0, weights=stored_weights(built), state=state)

    with doing(f"writing {output}"):
        write_folder(output, fill)
    return open_stored(output), conversion


def export(
    run: RunData,
    output: str | Path,
    *,
    layout: str | None = None,
    weights: Weights | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a run's weights as one safetensors file that `load_run` and `create_model` take.

    Its metadata hold the recipe without the data.   overwrite: a file that is there already.
    layout: of CONVERTERS, for other projects' code; "onnx", "exported" or "torchscript" for a folder of
    graphs (see `api.runs.graphs.graph_files`); ours when left out.   half: store float16.
    A task that trains a part of its model has a method `export(path, *, layout, half, **notes)` and formats
    of its own; it decides then what is written.
    """
    if layout in GRAPHS:
        if half:
            raise UsageError(f"--to {layout} writes float32 graphs", fix="leave --half out")
        from genzoo.api.runs.graphs.graph_files import export_graphs

        return export_graphs(run, output, layout=layout, weights=weights)
    task = run.task(weights=weights, device="cpu")
    own = able(task, ExportsPart)
    notes: dict[str, Any] = {"layout": layout, "half": half, "run": run.recipe.name, "steps": run.step}
    if Path(output).is_dir() and own is not None:
        return own.export(output, **notes)  # a folder that is not empty is refused there
    require_utf8(output)
    claim_file(output, overwrite=overwrite)
    if own is not None and Path(output).is_file():
        return write_file(output, partial(_export_part, own, notes))
    if own is not None:
        return own.export(output, **notes)
    _require_suffix(Path(output))
    chosen = run.choose(run.checkpoint(), weights)
    tensors = dict(task.model.state_dict())
    if layout is not None:
        tensors = _in_layout(layout, tensors, run.plan.task)
    if half:
        tensors = {
            key: value.half() if value.is_floating_point() else value for key, value in tensors.items()
        }
    facts = {"genzoo_run": run.recipe.name, "genzoo_step": str(run.step), "genzoo_weights": chosen}
    facts |= {} if layout is None else {LAYOUT: layout}
    classes = run.class_names(run.checkpoint())
    facts |= {} if classes is None else {CLASSES: json.dumps(list(classes))}
    metadata = metadata_of(without_start(run.plan.model.section(), task.model), run.recipe.data, **facts)
    with doing(f"writing {output}"):
        # the same bytes from the same run: the format's own library puts the metadata in any order
        return write_tensors(Path(output), tensors, metadata, World.single())


def _in_layout(layout: str, tensors: dict[str, Tensor], task: Node) -> dict[str, Tensor]:
    """Weights as another project lays them out. Raises UsageError for a layout that nobody knows."""
    if layout not in CONVERTERS:
        known = f"one of {', '.join([*CONVERTERS.names(), *GRAPHS])}"
        raise UsageError(f"there is no layout {layout!r}", fix=did_you_mean(layout, CONVERTERS) or known)
    converter = CONVERTERS.get(layout)()
    _check_task(converter, task)
    converted: dict[str, Tensor] = converter.from_genzoo(tensors)
    return converted


def _require_suffix(output: Path) -> None:
    """Raise UsageError for a file whose name does not say what it holds: nothing would read it again."""
    if output.suffix != ".safetensors":
        raise UsageError(
            f"{output} is to hold safetensors, and its name does not end so",
            fix=f"name it {output.with_suffix('.safetensors')}",
        )


def export_for(
    run: RunData, output: str | Path, *, client: str, weights: Weights | None = None
) -> tuple[Path, list[str]]:
    """Write what a run learnt as another program's files into a new folder; lines say how to use them there.

    Raises UsageError where the task has no such files.
    """
    own = able(run.task(weights=weights, device="cpu"), ExportsForClients)
    if own is None:
        raise UsageError(
            f"the task {run.plan.task.name!r} has no files for {client}", fix="leave --for out, or use --to"
        )
    return own.export_for(output, client=client)


def _export_part(own: ExportsPart, notes: Mapping[str, Any], part: Path) -> None:
    part.unlink()  # a task writes where there is no file yet
    own.export(part, **notes)


def _check_task(converter: Converter, task: Node) -> None:
    checking = able(converter, ChecksTask)
    if checking is not None:
        checking.check_task(task)
