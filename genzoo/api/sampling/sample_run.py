"""Sampling a run: in memory, or as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.recipes.ports import require_sampler
from genzoo.api.sampling.class_names import classes_of, labels_of_names
from genzoo.api.sampling.execution import Execution, executed
from genzoo.api.sampling.folder import Progress, write_samples
from genzoo.api.sampling.other_runs import with_tasks
from genzoo.api.sampling.plan import SamplePlan, make_plan, sample_all
from genzoo.api.sampling.samples import Samples
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import SamplesAsTrained
from genzoo.core.memory import freed_memory_kept
from genzoo.core.processes import World
from genzoo.nn.packed import packs_kept

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.core.types import Task


@dataclass(frozen=True)
class _Prepared:
    """What to sample with, what to sample, and what samples.json will say about it."""

    task: Task
    plan: SamplePlan
    settings: dict[str, Any]


@freed_memory_kept()
@packs_kept()
def sample_run(
    run: RunData,
    *,
    num: int | None = None,
    seed: int = 0,
    weights: Weights | None = None,
    checkpoint: str | int | Path | None = None,
    device: torch.device | str | None = None,
    block_size: int | None = None,
    compile: bool | None = None,
    cuda_graphs: bool | None = None,
    allow_tf32: bool | None = None,
    **options: Any,
) -> Samples:
    """Samples in memory.

    options: what to sample (class_labels=[1, 2, 3], or names of classes) and how (guidance_scale=1.5,
    steps=50, sampler="ddim"); the recipe's sampler section gives the rest. Sample i depends on the seed and
    on i alone, not on `num`.   compile, cuda_graphs, allow_tf32: see
    `Execution`; as the recipe says when left out.
    """
    run, options = run.opened_with(options)  # a file may need its base before it tells anything
    how = Execution.chosen(run.plan.sampling, compile=compile, cuda_graphs=cuda_graphs, allow_tf32=allow_tf32)
    made = _prepare(run, num, seed, weights, checkpoint, device, block_size, how, options)
    with executed(made.task, how):
        pixels = torch.cat([part for _, part in sample_all(made.task, made.plan)])
    return Samples(pixels, made.plan.conditions, made.settings)


@freed_memory_kept()
@packs_kept()
def sample_run_to(
    run: RunData,
    folder: str | Path,
    *,
    num: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    weights: Weights | None = None,
    checkpoint: str | int | Path | None = None,
    device: torch.device | str | None = None,
    block_size: int | None = None,
    clip_format: str = "frames",
    fps: float = 8.0,
    progress: Progress | None = None,
    world: World | None = None,
    compile: bool | None = None,
    cuda_graphs: bool | None = None,
    allow_tf32: bool | None = None,
    **options: Any,
) -> Path:
    """Samples as files in a folder; goes on where an interrupted call stopped. Options as in `sample_run`.

    clip_format: of clips, "frames" (a folder of PNGs), "mp4" or "gif", `fps` frames a second.
    world: the processes that share the samples, those of torchrun when left out.
    """
    run, options = run.opened_with(options)  # a file may need its base before it tells anything
    how = Execution.chosen(run.plan.sampling, compile=compile, cuda_graphs=cuda_graphs, allow_tf32=allow_tf32)
    made = _prepare(run, num, seed, weights, checkpoint, device, block_size, how, options)
    target = Path(folder)
    with executed(made.task, how):
        write_samples(
            made.task,
            made.plan,
            target,
            settings=made.settings,
            batch_size=batch_size,
            world=world or World.current(),
            clip_format=clip_format,
            fps=fps,
            progress=progress,
        )
    return target


def _prepare(
    run: RunData,
    num: int | None,
    seed: int,
    weights: Weights | None,
    checkpoint: str | int | Path | None,
    device: torch.device | str | None,
    block_size: int | None,
    how: Execution,
    options: Mapping[str, Any],
) -> _Prepared:
    path = run.checkpoint(checkpoint)
    task = run.task(weights=weights, checkpoint=path, device=device)
    if isinstance(options.get("sampler"), str):
        require_sampler(run.recipe.data, options["sampler"])
    size = run.plan.sampling.block_size if block_size is None else block_size
    options, names = with_tasks(task, options, device=device), run.class_names(path)
    if options.get("class_labels") is not None:
        options = {**options, "class_labels": labels_of_names(options["class_labels"], names)}
    plan = make_plan(task, num=num, seed=seed, block_size=size, options=options)
    settings = {
        "run": run.recipe.name,
        "recipe_sha256": run.recipe.sha256,
        **run.described(path, weights),
        "seed": plan.seed,
        "block_size": plan.block_size,
        **_precision(run, task, plan.options),
        **how.described(),
        "options": dict(plan.options),
    }
    classes = classes_of(plan.conditions, names)
    settings |= {"classes": classes} if classes else {}
    return _Prepared(task, plan, settings)


def _precision(run: RunData, task: Task, options: Mapping[str, Any]) -> dict[str, str]:
    """What the network computes in; nothing where the task has no say in it."""
    following = able(task, SamplesAsTrained)
    section = {} if run.plan.sampler is None else run.plan.sampler.section()
    asked = str({**section, **options}.get("precision", "run"))
    if asked != "run":
        return {"precision": asked}
    return {} if following is None else {"precision": following.run_precision}
