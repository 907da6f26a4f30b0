"""Runs without training: a file that a family knows how to open, such as weights merged from several."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.recipes.build import assemble, build_codec
from genzoo.api.recipes.plan import RunPlan, plan_of
from genzoo.api.runs.stored import ready
from genzoo.core.checkpoint_manifest import file_digest
from genzoo.core.errors import UsageError
from genzoo.core.processes import chosen_device
from genzoo.core.progress import doing
from genzoo.core.recipe import Recipe
from genzoo.core.registry import SOURCES
from genzoo.core.signatures import parameters

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.core.types import Dataset, Task

Opener = Callable[..., Recipe | None]


def open_source(path: Path) -> OpenedFile | None:
    """What the first source that knows the path makes of it, or None."""
    for name in SOURCES:
        opener: Opener = SOURCES.get(name)
        recipe = opener(path)
        if recipe is not None:
            return OpenedFile(path, recipe, opener)
    return None


class OpenedFile:
    """Weights in a file, or in a folder without checkpoints; a `RunData`.

    path: the file.   folder: where samples go by default: the path itself, or beside a file the folder of its
    name.   opener: made the recipe out of the path; its options (keyword-only) are options of sampling too.
    """

    step = 0  # it was not trained here

    def __init__(self, path: Path, recipe: Recipe, opener: Opener) -> None:
        self.path, self.recipe, self._opener = path, recipe, opener
        self.folder = path if path.is_dir() else path.with_suffix("")
        self._tasks: dict[str, Task] = {}
        self._others: dict[str, OpenedFile] = {}

    def __repr__(self) -> str:
        return f"OpenedFile({str(self.path)!r})"

    @cached_property
    def plan(self) -> RunPlan:
        """The recipe as records, without data. Raises UsageError naming what the file does not tell."""
        missing = [key for key in self.recipe.missing() if not key.startswith("data.")]
        if missing:
            options = " ".join(f"{name}=..." for name in parameters(self._opener, keyword_only=True))
            raise UsageError(f"{self.path} does not tell {', '.join(missing)}", fix=f"add it: {options}")
        return plan_of(self.recipe, but=("data",))

    def dataset(self) -> Dataset:
        """Raises UsageError: a file brings no data."""
        raise UsageError(
            f"{self.path} was not trained here, so it has no data to compare with",
            fix="name a reference, such as a folder of pictures",
        )

    def checkpoint(self, which: str | int | Path | None = None) -> Path:
        """The path itself."""
        if which is not None and Path(str(which)) != self.path:
            raise UsageError(f"{self.path} has no checkpoints", fix="leave the checkpoint out")
        return self.path

    def choose(self, checkpoint: Path, weights: Weights | None = None) -> Weights:
        """The only ones there are."""
        if weights not in (None, "raw"):
            raise UsageError(
                f"weights is {weights!r}, and {self.path} holds one kind of weights", fix="leave weights out"
            )
        return "raw"

    def task(
        self,
        *,
        weights: Weights | None = None,
        checkpoint: str | int | Path | None = None,
        device: torch.device | str | None = None,
    ) -> Task:
        """The task around the file, on the device, in evaluation mode; built once for each device."""
        self.choose(self.checkpoint(checkpoint), weights)
        target = chosen_device(device)
        if target not in self._tasks:
            self._tasks = {target: self._build(target)}
        return self._tasks[target]

    def _build(self, device: str) -> Task:
        with doing(f"loading {self.path}"):
            return ready(assemble(self.plan, build_codec(self.plan)), device)

    def first_weights(self) -> Mapping[str, Tensor]:
        """What another training begins with: of a base in diffusers' layout under the names of a
        `TextToImageModel`, of anything else those of its own model.
        """
        if (self.path / "model_index.json").is_file() and (self.path / "unet").is_dir():
            from genzoo.pretrained.text_to_image_model import weights_of_base

            return weights_of_base(self.path)
        weights: Mapping[str, Tensor] = self.task(device="cpu").model.state_dict()
        return weights

    def described(self, checkpoint: Path, weights: Weights | None = None) -> dict[str, Any]:
        """The file's name and a hash of its content: a file of that name may be written again."""
        return {
            "checkpoint": checkpoint.name,
            "weights": self.choose(checkpoint, weights),
            "content_sha256": _digest(self.path),
        }

    def class_names(self, checkpoint: Path) -> Sequence[str] | None:
        """A file of others names no classes."""
        return None

    def opened_with(self, options: Mapping[str, Any]) -> tuple[RunData, dict[str, Any]]:
        """The path opened with those options that its opener has; the others are left."""
        known = parameters(self._opener, keyword_only=True)
        own = {name: value for name, value in options.items() if name in known}
        left = {name: value for name, value in options.items() if name not in own}
        return (self._reopened(own) if own else self), left

    def _reopened(self, options: Mapping[str, Any]) -> OpenedFile:
        key = repr(sorted(options.items()))
        if key not in self._others:
            recipe = self._opener(self.path, **options)
            assert recipe is not None
            self._others = {key: OpenedFile(self.path, recipe, self._opener)}
        return self._others[key]


def _digest(path: Path) -> str:
    """Of a file; of a folder, of the files in it, without what lies in folders below."""
    if path.is_file():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in sorted(one for one in path.iterdir() if one.is_file()):
        digest.update(f"{file.name}\x1f{file_digest(file)}\x1f".encode())
    return digest.hexdigest()
