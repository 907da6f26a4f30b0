"""Training from a recipe: build the parts and run the trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.api.recipes.build import assemble, build_codec, build_dataset, resolve
from genzoo.api.recipes.facts import latent_facts
from genzoo.api.recipes.plan import RunPlan, plan_of
from genzoo.api.runs.located import located
from genzoo.api.runs.stored import StoredRun, open_stored
from genzoo.api.runs.warm_start import WarmStartReport, warm_start_model
from genzoo.api.training.preview_hook import preview_function
from genzoo.core.checkpoint import checkpoint_steps
from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import NeedsCodec, NeedsControl, SharesWork
from genzoo.core.contracts.parts import NeedsClasses, ScalesLatents
from genzoo.core.contracts.tasks import ExtractsControls, Predicts
from genzoo.core.errors import RecipeError
from genzoo.core.process_settings import process_settings
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.core.registry import METRICS
from genzoo.core.run_folder import RunFolder
from genzoo.core.shapes_alone import shapes_will_do
from genzoo.data.label_check import check_labels
from genzoo.training.devices import accelerate_states, joined
from genzoo.training.hook import Hook
from genzoo.training.hooks import PreviewHook
from genzoo.training.trainer import Trainer

if TYPE_CHECKING:
    from genzoo.api.training.held_out_hook import Division
    from genzoo.core.types import Dataset, LatentCodec, Task
    from genzoo.training.summary import Summary


@dataclass(frozen=True)
class Trained:
    """What `train_recipe` leaves. batch: how it was made up.   is_main: whether this process writes."""

    run: StoredRun
    batch: str
    is_main: bool


def train_recipe(
    recipe: Recipe | str | Path,
    *,
    output: str | Path | None = None,
    resume: str | Path = "auto",
    hooks: Sequence[Hook] = (),
    until: int | None = None,
) -> Trained:
    """Train a recipe to its last step, without its report: `genzoo.api.run.train` does both.

    until: stop earlier, after this step, as in `Trainer.fit`.
    """
    with accelerate_states():
        trainer, _ = build_trainer(as_recipe(recipe), output=output, hooks=hooks, resume=resume)
        trainer.fit(resume, until=until)
    return Trained(open_stored(trainer.folder.path), str(trainer.plan), trainer.is_main)


@process_settings()
def dry_run(
    recipe: Recipe | str | Path,
    *,
    output: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Build everything, run one batch and look at the data. Writes no file.

    Parameters, memory, disk, time, classes, files that cannot be read, the batch formula. Of a base whose
    folder has no weights the memory is counted from its configuration, and nothing is computed.   progress:
    called with (files looked at, files to look at).
    """
    with accelerate_states(), shapes_will_do():
        trainer, _ = build_trainer(as_recipe(recipe), output=output)
        return trainer.dry_run(progress)


def build_trainer(
    recipe: Recipe,
    *,
    output: str | Path | None = None,
    hooks: Sequence[Hook] = (),
    resume: str | Path = "never",
) -> tuple[Trainer, RunPlan]:
    """The trainer of a recipe, and its plan with every `auto` filled in. Labels are checked here.

    resume: as in `train`; a run that goes on from a checkpoint does not look at `init_from` again.
    """
    if Path(recipe.source).name == "recipe.yaml":  # a run's: its data are found from where it was started
        recipe = located(recipe, Path(recipe.source).parent)
    plan = plan_of(recipe)
    folder = Path(output) if output is not None else Path("runs") / recipe.name
    RunFolder(folder).require_own()  # before anything slow, and in a dry run too
    config = plan.train
    if config is None:
        raise RecipeError(f"{recipe.source}: train: a recipe needs this section to be trained")
    world = joined(config)
    dataset, codec = build_dataset(plan, world), build_codec(plan)
    sharing = able(dataset, SharesWork)
    if sharing is not None:
        sharing.share_work(world)
    plan = resolve(plan, dataset, codec)
    check_measures(plan, dataset)
    check_labels(dataset, plan.model.arguments.get("num_classes"))
    task = _bound_task(plan, dataset, codec)
    if plan.init_from is not None and not _goes_on(folder, resume):
        predicting = able(task, Predicts)
        prediction = None if predicting is None else predicting.prediction
        fates = warm_start_model(task.model, plan.init_from, prediction=prediction)
        hooks = (*hooks, WarmStartReport(fates))
    division = _division(plan, dataset, codec)
    trainer = Trainer(
        task,
        dataset,
        config,
        only=None if division is None else division.training,
        optim=plan.optim.section(),
        output=folder,
        hooks=(*_watching(plan, task, division), *hooks),
        recipe=plan.recipe,
        facts=_facts(codec),
    )
    return trainer, plan


def _division(plan: RunPlan, dataset: Dataset, codec: LatentCodec | None) -> Division | None:
    if plan.held_out is None:
        return None
    from genzoo.api.training.held_out_hook import divide

    return divide(plan.held_out, plan.data, dataset, codec)


def _bound_task(plan: RunPlan, dataset: Dataset, codec: LatentCodec | None) -> Task:
    """The task; stored latents and controls are compared with what its codec and its extractor make."""
    latents = able(dataset, NeedsCodec)
    if latents is not None:
        latents.bind_codec(codec)
    task = assemble(plan, codec)
    controls = able(dataset, NeedsControl)
    if controls is not None:
        extracting = able(task, ExtractsControls)
        controls.bind_control(None if extracting is None else extracting.extract)
    return task


def check_measures(plan: RunPlan, dataset: Dataset) -> None:
    """Raise RecipeError for metrics of the report that need classes, where the data have none."""
    if dataset.num_classes:
        return
    needing = [
        metric.name for metric in plan.report if able(METRICS.get(metric.name), NeedsClasses) is not None
    ]
    if needing:
        raise RecipeError(
            f"{plan.recipe.source}: report: {', '.join(needing)} cannot judge data without classes",
            fix="give each class its folder, or a report without: 'report=[{name: sample_grid}]', report=[]",
        )


def _facts(codec: LatentCodec | None) -> dict[str, str]:
    """What the checkpoints keep of the codec: other latents would be another problem to learn."""
    if codec is None:
        return {}
    scaling = able(codec, ScalesLatents)
    scale = "" if scaling is None else f" x {scaling.scaling_factor:g}"
    return {"codec": f"{codec.fingerprint}{scale}", **latent_facts(codec)}


def _goes_on(folder: Path, resume: str | Path) -> bool:
    if resume == "auto":
        return bool(checkpoint_steps(folder / "checkpoints"))
    return resume != "never"


def as_recipe(recipe: Recipe | str | Path) -> Recipe:
    """A recipe as it is, or loaded by path or name."""
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)


def _watching(plan: RunPlan, task: Task, division: Division | None) -> Iterator[Hook]:
    """The hooks that the recipe asks for; what measures is imported for them alone."""
    if plan.held_out is not None and division is not None:
        from genzoo.api.training.held_out_hook import HeldOutHook

        yield HeldOutHook(plan.held_out, division, task, seed=plan.seed)
    block_size = plan.sampling.block_size
    if plan.preview is not None:
        preview = preview_function(plan.preview, block_size)
        at_once = min(plan.preview.num, block_size)
        yield PreviewHook(preview, every=plan.preview.every, at_once=at_once)
    if plan.evaluation is not None:
        from genzoo.api.training.evaluation_hook import EvaluationHook

        sampler = None if plan.sampler is None else plan.sampler.section()
        yield EvaluationHook(plan.evaluation, block_size=block_size, sampler=sampler)
