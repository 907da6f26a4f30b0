"""Runs without training: a file that a family knows how to open, such as weights merged from several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.recipes.build import assemble, build_codec
from genzoo.api.recipes.check import require_complete
from genzoo.api.run import Run, Weights
from genzoo.core.errors import UsageError
from genzoo.core.recipe import Recipe
from genzoo.core.registry import SOURCES
from genzoo.core.signatures import parameters

if TYPE_CHECKING:
    from genzoo.core.types import Task

Opener = Callable[..., Recipe | None]


def open_given(path: Path) -> GivenRun | None:
    """The first source that knows the path, or None."""
    for name in SOURCES:
        opener: Opener = SOURCES.get(name)
        recipe = opener(path)
        if recipe is not None:
            return GivenRun(path, recipe, opener)
    return None


class GivenRun(Run):
    """Weights in a file, or in a folder without checkpoints. `sample` takes the opener's options as well.

    folder: where samples go by default: the path itself, or beside a file the folder of its name.
    """

    def __init__(self, path: Path, recipe: Recipe, opener: Opener) -> None:
        super().__init__(path if path.is_dir() else path.with_suffix(""), recipe)
        self.path, self._opener = path, opener

    @property
    def step(self) -> int:
        """0: it was not trained here."""
        return 0

    def checkpoint(self, which: str | int | Path | None = None) -> Path:
        """The path itself."""
        if which is not None and Path(str(which)) != self.path:
            raise UsageError(f"{self.path} has no checkpoints", fix="leave the checkpoint out")
        return self.path

    def sample(self, **options: Any) -> Any:
        """As `Run.sample`."""
        return super().sample(**self._reopened(options))

    def sample_to(self, folder: str | Path, **options: Any) -> Path:
        """As `Run.sample_to`."""
        return super().sample_to(folder, **self._reopened(options))

    def _reopened(self, options: dict[str, Any]) -> dict[str, Any]:
        """Give the opener its own options; the others are left."""
        known = parameters(self._opener, keyword_only=True)
        own = {name: value for name, value in options.items() if name in known}
        if own:
            recipe = self._opener(self.path, **own)
            assert recipe is not None
            self.recipe, self._tasks = recipe, {}
        return {name: value for name, value in options.items() if name not in own}

    def _choose(self, checkpoint: Path, weights: Weights | None) -> Weights:
        if weights == "ema":
            raise UsageError(f"{self.path} holds one kind of weights", fix="leave weights out")
        return "raw"

    def _load(self, checkpoint: Path, weights: str, device: str) -> Task:
        missing = [key for key in self.recipe.missing() if not key.startswith("data.")]
        if missing:
            options = " ".join(f"{name}=..." for name in parameters(self._opener, keyword_only=True))
            raise UsageError(f"{self.path} does not tell {', '.join(missing)}", fix=f"add it: {options}")
        require_complete(self.recipe, but=("data",))
        task = assemble(self.recipe, build_codec(self.recipe))
        task.to(device)
        task.model.eval()
        return task
