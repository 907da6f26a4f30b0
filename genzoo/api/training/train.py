"""Training from a recipe: build the parts and run the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.api.recipes.build import assemble, build_codec, build_dataset, resolve
from genzoo.api.recipes.check import require_complete
from genzoo.api.runs.stored import StoredRun, open_stored
from genzoo.api.runs.warm_start import InitFrom, WarmStartReport, warm_start_model
from genzoo.api.training.evaluation_hook import evaluation_hooks
from genzoo.api.training.preview_hook import Preview, preview_function
from genzoo.core.checkpoint import checkpoint_steps
from genzoo.core.contracts import ExtractsControls, NeedsCodec, NeedsControl, Predicts, able
from genzoo.core.memory import keep_freed_memory
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.data.label_check import check_labels
from genzoo.training.config import TrainConfig
from genzoo.training.hook import Hook
from genzoo.training.hooks import PreviewHook
from genzoo.training.trainer import Trainer

if TYPE_CHECKING:
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
) -> Trained:
    """Train a recipe to its last step, without its report: `genzoo.api.run.train` does both."""
    keep_freed_memory()
    trainer, _ = build_trainer(as_recipe(recipe), output=output, hooks=hooks, resume=resume)
    trainer.fit(resume)
    return Trained(open_stored(trainer.folder.path), str(trainer.plan), trainer.is_main)


def dry_run(recipe: Recipe | str | Path, *, output: str | Path | None = None) -> Summary:
    """Build everything and run one batch: parameters, memory, the batch formula. Writes no file."""
    trainer, _ = build_trainer(as_recipe(recipe), output=output)
    return trainer.dry_run()


def build_trainer(
    recipe: Recipe,
    *,
    output: str | Path | None = None,
    hooks: Sequence[Hook] = (),
    resume: str | Path = "never",
) -> tuple[Trainer, Recipe]:
    """The trainer of a recipe, and the recipe with every `auto` filled in. Labels are checked here.

    resume: as in `train`; a run that goes on from a checkpoint does not look at `init_from` again.
    """
    require_complete(recipe)
    config = TrainConfig(**recipe.section("train"))
    dataset, codec = build_dataset(recipe), build_codec(recipe)
    recipe = resolve(recipe, dataset, codec)
    check_labels(dataset, recipe.section("model").get("num_classes"))
    latents = able(dataset, NeedsCodec)
    if latents is not None:
        latents.bind_codec(codec)
    task = assemble(recipe, codec)
    controls = able(dataset, NeedsControl)
    if controls is not None:
        extracting = able(task, ExtractsControls)
        controls.bind_control(None if extracting is None else extracting.extract)
    folder = Path(output) if output is not None else Path("runs") / recipe.name
    if recipe.section("init_from") and not _goes_on(folder, resume):
        section = InitFrom(**recipe.section("init_from"))
        predicting = able(task, Predicts)
        prediction = None if predicting is None else predicting.prediction
        fates = warm_start_model(task.model, section, prediction=prediction)
        hooks = (*hooks, WarmStartReport(fates))
    trainer = Trainer(
        task,
        dataset,
        config,
        optim=recipe.section("optim"),
        output=folder,
        hooks=(*_preview_hooks(recipe), *_evaluation_hooks(recipe), *hooks),
        recipe_text=recipe.to_yaml(),
    )
    return trainer, recipe


def _goes_on(folder: Path, resume: str | Path) -> bool:
    if resume == "auto":
        return bool(checkpoint_steps(folder / "checkpoints"))
    return resume != "never"


def as_recipe(recipe: Recipe | str | Path) -> Recipe:
    """A recipe as it is, or loaded by path or name."""
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)


def _preview_hooks(recipe: Recipe) -> list[Hook]:
    section = recipe.section("preview")
    if not section:
        return []
    preview = Preview(**section)
    draw = preview_function(preview, recipe.section("sampler").get("block_size"))
    return [PreviewHook(draw, every=preview.every)]


def _evaluation_hooks(recipe: Recipe) -> list[Hook]:
    return evaluation_hooks(
        recipe.section("evaluation"), block_size=recipe.section("sampler").get("block_size")
    )
