"""A run and what can be done with it: a thin top on the data in `api.runs` and the verbs beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.recipes.plan import RunPlan, variant
from genzoo.api.runs.open_run import open_run
from genzoo.api.runs.run_html import run_html
from genzoo.api.runs.run_report import report_is_current, run_report, write_card
from genzoo.api.sampling.sample_run import sample_run, sample_run_to
from genzoo.assets.shipped import is_shipped
from genzoo.core.errors import UsageError
from genzoo.core.node import node_of
from genzoo.core.process_settings import process_settings
from genzoo.core.run_folder import read_metrics
from genzoo.pretrained.hub_runs import is_hub_run

if TYPE_CHECKING:
    import torch

    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.api.sampling.samples import Samples
    from genzoo.core.recipe import Recipe
    from genzoo.core.types import Dataset, Task
    from genzoo.evaluation.result import EvaluationResult
    from genzoo.training.hook import Hook

logger = logging.getLogger(__name__)
CHANGEABLE = ("data.", "train.max_bad=")
"""How settings begin that may differ from those a run was trained with."""


def load_run(folder: str | Path, changes: Sequence[str] = ()) -> Run:
    """The run in a folder, on a hub ("hf://user/repo"), in a file of SOURCES, or that ships ("assets:NAME").

    changes: "key=value" of a run's data that hold for what is done with it, such as data.root=ELSEWHERE where
    the data lie elsewhere now, or train.max_bad=2. Raises UsageError when there is no run.
    """
    if not isinstance(folder, (str, Path)):
        raise UsageError(f"a run is a folder, not {folder!r:.80}", fix="name the --output of a training")
    for text in changes:
        if not text.startswith(CHANGEABLE):
            raise UsageError(
                f"{text[:80]!r} cannot be changed of a run that was trained",
                fix=f"what can be begins with {' or '.join(CHANGEABLE)}",
            )
    return Run(open_run(folder, changes))


def from_pretrained(repository: str, *, revision: str | None = None) -> Run:
    """The run or concept that `genzoo push` put at "user/repo" of a hub, or that of a local place.

    Only files that genzoo reads are fetched, and none of them is run. Raises UsageError, WeightsError.
    """
    if is_shipped(repository) or is_hub_run(repository) or Path(repository).exists():
        return load_run(repository)
    return load_run(f"hf://{repository}{f'@{revision}' if revision else ''}")


@process_settings()
def train(
    recipe: Recipe | str | Path,
    *,
    output: str | Path | None = None,
    resume: str | Path = "auto",
    hooks: Sequence[Hook] = (),
    until: int | None = None,
) -> Run:
    """Train a recipe to its last step, then run its report. The same call again continues where it stopped.

    output: the run's folder, runs/NAME when left out.   resume: "auto", "never", or a checkpoint's path.
    until: stop after this step; rates follow `train.steps` all the same. Settings that differ from those of
    the run in the folder are shown; they hold from the next step on and are kept in recipes/, or are refused
    (UsageError): those that make it another run, and all when no step is left to do.
    Raises Interrupted after a checkpoint when a signal asked to stop. What belongs to the whole process, such
    as global generators and how freed memory is treated, is afterwards as it was.
    """
    from genzoo.api.training.train import train_recipe

    done = train_recipe(recipe, output=output, resume=resume, hooks=hooks, until=until)
    run = Run(done.run)
    if done.is_main:
        wanted = run.plan.report
        if wanted and not report_is_current(run):
            logger.info("measuring: %s", ", ".join(metric.name for metric in wanted))
            run.report()
        write_card(run, batch=done.batch)
    return run


class Run:
    """A trained, or half-trained, model, or an opened file: its data, and the verbs on it.

    data: a `StoredRun` or an `OpenedFile`. A Run is a `RunData` itself, and a `MeasuredRun`.
    """

    def __init__(self, data: RunData) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return run_html(self)

    @property
    def folder(self) -> Path:
        """Where it lies; what is made of it goes below."""
        return self.data.folder

    @property
    def recipe(self) -> Recipe:
        """What made it, fully expanded."""
        return self.data.recipe

    @property
    def plan(self) -> RunPlan:
        """The recipe as records; the data may be missing. Raises RecipeError when it cannot be used."""
        return self.data.plan

    @property
    def step(self) -> int:
        """The optimizer step of the newest valid checkpoint; 0 before the first."""
        return self.data.step

    def metrics(self) -> list[dict[str, Any]]:
        """What training logged, by step: loss, learning rate and more. Of an open file there is nothing."""
        path = self.folder / "metrics.jsonl"
        return read_metrics(path) if path.is_file() else []

    def dataset(self) -> Dataset:
        """The data set the run was trained on, built once; of cached latents or controls, the images."""
        return self.data.dataset()

    def checkpoint(self, which: str | int | Path | None = None) -> Path:
        """A checkpoint by step or path; the newest valid one when left out. Raises CheckpointError."""
        return self.data.checkpoint(which)

    def choose(self, checkpoint: Path, weights: Weights | None = None) -> Weights:
        """The weights to use: as asked, else the averaged ones where there are any. Raises UsageError."""
        return self.data.choose(checkpoint, weights)

    @process_settings()
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
        return self.data.task(weights=weights, checkpoint=checkpoint, device=device)

    def described(self, checkpoint: Path, weights: Weights | None = None) -> dict[str, Any]:
        """What samples.json says about the weights."""
        return self.data.described(checkpoint, weights)

    def class_names(self, checkpoint: Path | None = None) -> Sequence[str] | None:
        """The classes by label, as training knew them; None without classes, or when nothing tells."""
        return self.data.class_names(checkpoint or self.checkpoint())

    def opened_with(self, options: Mapping[str, Any]) -> tuple[RunData, dict[str, Any]]:
        """The run that options of sampling ask for, and the options that are left."""
        return self.data.opened_with(options)

    @process_settings()
    def sample(self, *, num: int | None = None, seed: int = 0, **options: Any) -> Samples:
        """Samples in memory.

        options: what to sample (class_labels=[1, 2, 3]) and how (guidance_scale=1.5, steps=50,
        sampler="ddim"); the recipe's sampler section gives the rest. Also weights ("ema" or "raw"),
        checkpoint (a step or a path), device, block_size, and how the network runs (compile, cuda_graphs,
        allow_tf32: `api.sampling.execution.Execution`). Sample i depends on the seed and on i alone, not on
        `num`.
        """
        return sample_run(self.data, num=num, seed=seed, **options)

    @process_settings()
    def sample_to(self, folder: str | Path, *, num: int | None = None, seed: int = 0, **options: Any) -> Path:
        """Samples as files in a folder; goes on where an interrupted call stopped.

        options: as in `sample`; also batch_size, progress, and of clips clip_format ("frames", a folder of
        PNGs, "mp4" or "gif") and fps.
        """
        return sample_run_to(self.data, folder, num=num, seed=seed, **options)

    @process_settings()
    def evaluate(self, protocol: str = "quick", **options: Any) -> EvaluationResult:
        """Judge samples of this run by a named protocol; options as in `api.evaluation.evaluate_run`."""
        from genzoo.api.evaluation.evaluate_run import evaluate_run

        return evaluate_run(self.data, protocol=protocol, **options)

    @process_settings()
    def report(self, metrics: Sequence[Mapping[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
        """Run the recipe's report, or the given metric sections, and keep the results in report.json."""
        return run_report(self, self.plan.report if metrics is None else [node_of(one) for one in metrics])

    def variant(self, name: str, changes: Mapping[str, Any]) -> Run:
        """This run's recipe with other settings (dotted keys), trained into variants/NAME of its folder.

        Without report and previews. A variant that was trained before is not trained again.
        """
        return train(variant(self.recipe, name, changes), output=self.folder / "variants" / name)
