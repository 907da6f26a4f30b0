"""A run: the folder that training leaves behind, ready to sample and measure. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from genzoo.api.recipes.build import assemble, build_codec, build_dataset, has_auto, resolve
from genzoo.api.recipes.check import require_complete
from genzoo.api.recipes.ports import require_sampler
from genzoo.api.sampling.folder import Progress, Worker, write_samples
from genzoo.api.sampling.plan import BLOCK_SIZE, SamplePlan, make_plan, sample_all
from genzoo.api.sampling.samples import Samples
from genzoo.core.checkpoint import latest_valid, load_checkpoint, step_folder
from genzoo.core.checkpoint_manifest import holds_average
from genzoo.core.errors import CheckpointError, UsageError, WeightsError
from genzoo.core.model_state import require_same_facts, restore_weights
from genzoo.core.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from genzoo.core.types import Dataset, Task
    from genzoo.evaluation.result import EvaluationResult

Weights = Literal["ema", "raw"]


def load_run(folder: str | Path) -> Run:
    """The run in a folder, or weights of `core.sources` as a run. Raises UsageError when there is none."""
    path = Path(folder)
    if not (path / "recipe.yaml").is_file():
        from genzoo.api.runs.opened_file import open_given

        given = open_given(path)
        if given is None:
            raise UsageError(
                f"{folder} is not a run folder",
                why="it has no recipe.yaml",
                fix="name the --output of a training",
            )
        return given
    return Run(path, load_recipe(path / "recipe.yaml"))


class Run:
    """A trained, or half-trained, model with the recipe that made it.

    folder: where it lies.   recipe: fully expanded.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self._tasks: dict[tuple[Path, str, str], Task] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def step(self) -> int:
        """The optimizer step of the newest valid checkpoint; 0 before the first."""
        path = latest_valid(self.folder / "checkpoints")
        return 0 if path is None else step_of(path)

    @cached_property
    def _dataset(self) -> Dataset:
        return build_dataset(self.recipe)

    def dataset(self) -> Dataset:
        """The data set the run was trained on, built once; of cached latents or controls, the images."""
        # items of a cache are latents, or wait for an extractor, and metrics look at pixels
        cached = hasattr(self._dataset, "bind_codec") or hasattr(self._dataset, "bind_control")
        dataset: Dataset = self._dataset.images if cached else self._dataset  # type: ignore[attr-defined]
        return dataset

    def checkpoint(self, which: str | int | Path | None = None) -> Path:
        """A checkpoint by step or path; the newest valid one when left out. Raises CheckpointError."""
        root = self.folder / "checkpoints"
        if which is None:
            path = latest_valid(root)
            if path is None:
                raise CheckpointError(f"{self.folder} has no checkpoint yet", fix="train it first")
            return path
        path = root / step_folder(int(str(which))) if str(which).isdigit() else Path(str(which))
        if not path.is_dir():
            known = ", ".join(sorted(p.name for p in root.glob("step_*"))) or "none"
            raise CheckpointError(
                f"there is no checkpoint {str(which)!r}", where=str(root), why=f"it holds {known}"
            )
        return path

    def task(
        self,
        *,
        weights: Weights | None = None,
        checkpoint: str | int | Path | None = None,
        device: torch.device | str | None = None,
    ) -> Task:
        """The task with trained weights, on the device, in evaluation mode; built once for each choice.

        weights: averaged where training kept an average, raw elsewhere, when left out.
        """
        path, target = self.checkpoint(checkpoint), str(device or default_device())
        chosen = self._choose(path, weights)
        key = (path, chosen, target)
        if key not in self._tasks:
            self._tasks = {key: self._load(path, chosen, target)}  # one at a time: models can be large
        return self._tasks[key]

    def sample(
        self,
        *,
        num: int | None = None,
        seed: int = 0,
        weights: Weights | None = None,
        checkpoint: str | int | Path | None = None,
        device: torch.device | str | None = None,
        block_size: int | None = None,
        **options: Any,
    ) -> Samples:
        """Samples in memory.

        options: what to sample (class_labels=[1, 2, 3]) and how (guidance_scale=1.5, steps=50,
        sampler="ddim"); the recipe's sampler section gives the rest. Sample i depends on the seed and on i
        alone, not on `num`.
        """
        path = self.checkpoint(checkpoint)
        task = self.task(weights=weights, checkpoint=path, device=device)
        plan = self._plan(task, num, seed, block_size, options)
        pixels = torch.cat([part for _, part in sample_all(task, plan)])
        return Samples(pixels, plan.conditions, self._settings(plan, path, self._choose(path, weights)))

    def sample_to(
        self,
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
        **options: Any,
    ) -> Path:
        """Samples as files in a folder; goes on where an interrupted call stopped. Options as in `sample`.

        clip_format: of clips, "frames" (a folder of PNGs), "mp4" or "gif", `fps` frames a second.
        """
        path = self.checkpoint(checkpoint)
        task = self.task(weights=weights, checkpoint=path, device=device)
        plan = self._plan(task, num, seed, block_size, options)
        settings = self._settings(plan, path, self._choose(path, weights))
        worker = Worker.from_environment()
        target = Path(folder)
        write_samples(
            task,
            plan,
            target,
            settings=settings,
            batch_size=batch_size,
            worker=worker,
            clip_format=clip_format,
            fps=fps,
            progress=progress,
        )
        return target

    def report(self, metrics: Sequence[Mapping[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
        """Run the recipe's report, or the given metric sections, and keep the results in report.json."""
        from genzoo.api.runs.run_report import run_report

        return run_report(self, self.recipe.data.get("report") or [] if metrics is None else metrics)

    def variant(self, name: str, changes: Mapping[str, Any]) -> Run:
        """This run's recipe with other settings (dotted keys), trained into variants/NAME of its folder.

        Without report and previews. A variant that was trained before is not trained again.
        """
        from genzoo.api.training.train import train

        quiet = {"preview.every": 0} if self.recipe.data.get("preview") else {}
        settings = {**changes, **quiet, "name": name, "report": []}
        recipe = self.recipe.replaced(settings, f"variant {name} of {self.recipe.name}")
        return train(recipe, output=self.folder / "variants" / name)

    def evaluate(self, protocol: str = "quick", **options: Any) -> EvaluationResult:
        """Judge samples of this run by a named protocol; options as in `api.evaluation.evaluate_run`."""
        from genzoo.api.evaluation.evaluate_run import evaluate_run

        return evaluate_run(self, protocol=protocol, **options)

    def _plan(
        self, task: Task, num: int | None, seed: int, block_size: int | None, options: Mapping[str, Any]
    ) -> SamplePlan:
        if isinstance(options.get("sampler"), str):
            require_sampler(self.recipe.data, options["sampler"])
        size = block_size or self.recipe.section("sampler").get("block_size") or BLOCK_SIZE
        return make_plan(task, num=num, seed=seed, block_size=size, options=options)

    def _settings(self, plan: SamplePlan, checkpoint: Path, weights: str) -> dict[str, Any]:
        return {
            "run": self.recipe.name,
            "recipe_sha256": self.recipe.sha256,
            "checkpoint": checkpoint.name,
            "weights": weights,
            "seed": plan.seed,
            "block_size": plan.block_size,
            "options": dict(plan.options),
        }

    def _choose(self, checkpoint: Path, weights: Weights | None) -> Weights:
        return choose_weights(checkpoint, weights)

    def _load(self, checkpoint: Path, weights: str, device: str) -> Task:
        require_complete(self.recipe, but=("data",))
        codec = build_codec(self.recipe)
        recipe = resolve(self.recipe, self._dataset, codec) if has_auto(self.recipe) else self.recipe
        task = assemble(recipe, codec)
        load_weights(task, checkpoint, weights)
        task.to(device)
        task.model.eval()
        return task


def choose_weights(checkpoint: Path, weights: Weights | None = None) -> Weights:
    """What to sample with: as asked; else averaged where training kept an average, raw elsewhere."""
    if weights not in (None, "ema", "raw"):
        raise UsageError(f"weights is {weights!r}", fix='use "ema" or "raw"')
    return weights or ("ema" if holds_average(checkpoint) else "raw")


def load_weights(task: Task, checkpoint: Path, weights: str) -> None:
    """Put a checkpoint's weights into a task's model. Raises CheckpointError unless keys and shapes fit."""
    stored = load_checkpoint(checkpoint, ("model", "ema"))
    if weights == "ema" and not stored.ema and not stored.state.get("averaged"):
        raise WeightsError(f"{checkpoint} holds no averaged weights", fix='sample with weights="raw"')
    tensors = stored.averaged() if weights == "ema" else stored.weights
    known = stored.state.get("facts") or {}
    require_same_facts(known, getattr(task, "facts", {}), where=str(checkpoint))
    restore_weights(task.model, tensors, frozen=stored.state.get("frozen"), where=str(checkpoint))


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    digits = checkpoint.name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0


def default_device() -> str:
    """The accelerator of this process, or the CPU."""
    import os

    if torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    return "cpu"
