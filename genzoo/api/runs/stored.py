"""The folder that training leaves behind, as data. Nothing in it is trusted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.recipes.build import assemble, build_codec, build_dataset, has_auto, resolve
from genzoo.api.recipes.facts import latent_facts
from genzoo.api.recipes.plan import RunPlan, plan_of
from genzoo.api.runs.located import located
from genzoo.api.runs.reaveraged import reaveraged
from genzoo.core.checkpoint import latest_valid, load_checkpoint, step_folder
from genzoo.core.checkpoint_manifest import holds_average, read_json, weights_digest
from genzoo.core.checkpoint_memory import CheckpointMemory
from genzoo.core.contracts.datasets import pictures_of
from genzoo.core.contracts.tasks import recorded_facts
from genzoo.core.errors import CheckpointError, UsageError, WeightsError
from genzoo.core.exported import names_in
from genzoo.core.model_state import require_same_facts, restore_weights
from genzoo.core.processes import chosen_device
from genzoo.core.progress import doing
from genzoo.core.recipe import Recipe, load_recipe, with_overrides
from genzoo.data.readable import readable

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.core.checkpoint import Checkpoint
    from genzoo.core.types import Dataset, Task


def open_stored(folder: str | Path, changes: Sequence[str] = ()) -> StoredRun:
    """The run in a folder.   changes: see `StoredRun`. Raises UsageError when there is none."""
    path = Path(folder)
    around = _run_around(path)
    if around is not None:
        raise UsageError(f"{folder} is a part of the run {around}", fix=f"name the run: {around}")
    if path.is_file():
        raise UsageError(
            f"{folder} is a file that cannot be sampled as it is",
            why="neither genzoo wrote it, nor does a family know it",
            fix=f"make a run of released weights first: genzoo convert {path.name} RUN",
        )
    if not (path / "recipe.yaml").is_file():
        raise UsageError(
            f"{folder} is not a run folder",
            why="it has no recipe.yaml",
            fix="name the --output of a training",
        )
    return StoredRun(path, load_recipe(path / "recipe.yaml"), changes=changes)


def _run_around(path: Path) -> Path | None:
    """The run whose recipe, checkpoints, checkpoint or file of a checkpoint this is."""
    place = path.absolute()
    for above in place.parents[:3]:
        part = place.relative_to(above).parts[0]
        if part in ("recipe.yaml", "checkpoints") and (above / "recipe.yaml").is_file():
            return Path(os.path.relpath(above))
    return None


class StoredRun:
    """A trained, or half-trained, model with the recipe that made it; a `RunData`.

    folder: where it lies.   recipe: fully expanded.   length: of averaged weights that are put together from
    those it stored, in place of the average that training kept.   changes: "key=value" of its data that hold
    here, such as data.root=ELSEWHERE; the recipe stays what the run was made by.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, *, length: float | None = None, changes: Sequence[str] = ()
    ) -> None:
        self.folder, self.recipe, self.length, self.changes = folder, recipe, length, tuple(changes)
        self._memory = CheckpointMemory()
        self._reaveraged: StoredRun | None = None
        self._tasks: dict[tuple[Path, str, str], Task] = {}

    def __repr__(self) -> str:
        return f"StoredRun({str(self.folder)!r})"

    @property
    def step(self) -> int:
        """The optimizer step of the newest valid checkpoint; 0 before the first."""
        path = self._newest()
        return 0 if path is None else step_of(path)

    @cached_property
    def plan(self) -> RunPlan:
        """The recipe as records; the data may be missing. Raises RecipeError when it cannot be used."""
        changed = with_overrides(self.recipe, self.changes) if self.changes else self.recipe
        return plan_of(located(changed, self.folder), but=("data",))

    @cached_property
    def _dataset(self) -> Dataset:
        return build_dataset(self.plan)

    def dataset(self) -> Dataset:
        """The data set the run was trained on, built once; of cached latents or controls, the images.

        Items that cannot be read are left out, as many as training may replace. Raises DataError for more.
        """
        return self._pictures

    @cached_property
    def _pictures(self) -> Dataset:
        # items of a cache are latents, or wait for an extractor, and metrics look at pixels
        config = self.plan.train
        return readable(pictures_of(self._dataset), 0 if config is None else config.max_bad)

    def checkpoint(self, which: str | int | Path | None = None) -> Path:
        """A checkpoint by step or path; the newest valid one when left out. Raises CheckpointError."""
        root = self.folder / "checkpoints"
        if which is None:
            path = self._newest()
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

    def weights(self, which: str | int | Path | None = None) -> Checkpoint:
        """A checkpoint's raw and averaged weights, on the CPU, and its state. Raises CheckpointError."""
        found = load_checkpoint(self.checkpoint(which), ("model", "ema"), self._memory.verify)
        if self.length is None:
            return found
        return replace(found, ema=reaveraged(self.folder, self.length, found.step))

    def choose(self, checkpoint: Path, weights: Weights | None = None) -> Weights:
        """What to sample with: as asked; else averaged where training kept an average, raw elsewhere."""
        if weights not in (None, "ema", "raw"):
            raise UsageError(f"weights is {weights!r}", fix='use "ema" or "raw"')
        if self.length is not None and weights == "raw":
            raise UsageError("raw weights have no average", fix='leave out ema or weights="raw"')
        if self.length is not None:
            return "ema"
        return weights or ("ema" if holds_average(checkpoint) else "raw")

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
        path, target = self.checkpoint(checkpoint), chosen_device(device)
        chosen = self.choose(path, weights)
        key = (path, chosen, target)
        if key not in self._tasks:
            self._tasks = {key: self._load(path, chosen, target)}  # one at a time: models can be large
        return self._tasks[key]

    def described(self, checkpoint: Path, weights: Weights | None = None) -> dict[str, Any]:
        """The checkpoint's name, which weights of it, and their hash: another run may come to this place."""
        chosen = self.choose(checkpoint, weights)
        length = {} if self.length is None else {"ema": self.length}
        return {
            "checkpoint": checkpoint.name,
            "weights": chosen,
            "weights_sha256": weights_digest(checkpoint, chosen),
            **length,
        }

    def class_names(self, checkpoint: Path) -> Sequence[str] | None:
        """The classes by label, as the checkpoint keeps them; None without classes, or of older genzoo."""
        return names_in(read_json(checkpoint, "state.json").get("classes"))

    def opened_with(self, options: Mapping[str, Any]) -> tuple[RunData, dict[str, Any]]:
        """Itself, or with `ema=0.05` the same run with averaged weights of that relative length."""
        left = dict(options)
        length = left.pop("ema", None)
        if length is None:
            return self, left
        if isinstance(length, bool) or not isinstance(length, (int, float)):
            raise UsageError(f"ema is {length!r}", fix="use a relative length, such as ema=0.05")
        if self._reaveraged is None or self._reaveraged.length != length:
            self._reaveraged = StoredRun(self.folder, self.recipe, length=float(length), changes=self.changes)
        return self._reaveraged, left

    def _newest(self) -> Path | None:
        return latest_valid(self.folder / "checkpoints", self._memory.verify)

    def _load(self, checkpoint: Path, weights: Weights, device: str) -> Task:
        with doing(f"loading {self.folder}"):
            codec = build_codec(self.plan)
            plan = resolve(self.plan, self._dataset, codec) if has_auto(self.plan) else self.plan
            task, stored = assemble(plan, codec), self.weights(checkpoint)
            where = str(stored.path)
            require_same_facts(stored.state.get("facts") or {}, latent_facts(codec), where=where)
            put_weights(task, stored, weights)
            return ready(task, device)


def put_weights(task: Task, stored: Checkpoint, weights: Weights) -> None:
    """A checkpoint's weights into a task's model. Raises CheckpointError unless keys and shapes fit."""
    where = str(stored.path)
    if weights == "ema" and not stored.ema and not stored.state.get("averaged"):
        raise WeightsError(f"{where} holds no averaged weights", fix='sample with weights="raw"')
    tensors = stored.averaged() if weights == "ema" else stored.weights
    known = stored.state.get("facts") or {}
    require_same_facts(known, recorded_facts(task), where=where)
    restore_weights(task.model, tensors, frozen=stored.state.get("frozen"), where=where)


def ready(task: Task, device: str) -> Task:
    """The task on a device, in evaluation mode."""
    task.to(device)
    task.model.eval()
    return task


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    digits = checkpoint.name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0
