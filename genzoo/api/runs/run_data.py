"""What every verb takes: a recipe with weights, left by training in a folder or held by a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from genzoo.api.recipes.plan import RunPlan
    from genzoo.core.recipe import Recipe
    from genzoo.core.types import Dataset, Task

Weights = Literal["ema", "raw"]


class RunData(Protocol):
    """A `StoredRun` or an `OpenedFile`: data, and no verb.

    folder: where what is made of it goes when no place is named.   recipe: fully expanded.
    step: the optimizer step of the newest valid checkpoint; 0 before the first, and of files.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def plan(self) -> RunPlan:
        """The recipe as records; the data may be missing. Raises RecipeError when it cannot be used."""

    @property
    def step(self) -> int: ...

    def dataset(self) -> Dataset:
        """The data set of training, as pixels. Raises UsageError when there is none."""

    def checkpoint(self, which: str | int | Path | None = None) -> Path:
        """A checkpoint by step or path; the newest valid one when left out. Raises CheckpointError."""

    def choose(self, checkpoint: Path, weights: Weights | None = None) -> Weights:
        """The weights to use: as asked, else the averaged ones where there are any. Raises UsageError."""

    def task(
        self,
        *,
        weights: Weights | None = None,
        checkpoint: str | int | Path | None = None,
        device: torch.device | str | None = None,
    ) -> Task:
        """The task with these weights, on the device, in evaluation mode; built once for each choice."""

    def described(self, checkpoint: Path, weights: Weights | None = None) -> dict[str, Any]:
        """What samples.json says about the weights: other weights have another description."""

    def class_names(self, checkpoint: Path) -> Sequence[str] | None:
        """The classes by label, as training knew them; None without classes, or when nothing tells."""

    def opened_with(self, options: Mapping[str, Any]) -> tuple[RunData, dict[str, Any]]:
        """The run that these options of sampling ask for, and the options that are left for the task."""
