"""A model as diffusers stores one: config.json says how to build and sample it, safetensors hold the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from genzoo.api.recipes.build import assemble, build_codec, build_model, has_auto
from genzoo.api.recipes.named import recipe_of
from genzoo.api.runs.carried import carried_in
from genzoo.api.runs.exported_file import ExportedFile
from genzoo.api.runs.stored import ready
from genzoo.core.errors import WeightsError
from genzoo.core.exported import Exported
from genzoo.core.types import Task


class GenzooModel(ModelMixin, ConfigMixin):
    """A model, and the recipe that says how it is sampled.

    architecture: the recipe's section `model`.   recipe: the other sections, without the data.   classes:
    their names by label.   step: of the training.   weights: "ema" for averaged ones, or "raw".
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        architecture: Mapping[str, Any],
        recipe: Mapping[str, Any],
        classes: Sequence[str] | None = None,
        step: int = 0,
        weights: str = "raw",
    ) -> None:
        super().__init__()
        named = None if classes is None else list(classes)
        said = Exported(Path(), dict(architecture), dict(recipe), step, weights, named)
        plan = ExportedFile(Path(), recipe_of(said), said).plan
        if has_auto(plan):
            raise WeightsError("config.json does not tell all of its model", fix="export the run again")
        self.model = build_model(plan)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """As the model's own."""
        return self.model(*inputs, **named)


class LoadedRun(ExportedFile):
    """The run in a GenzooModel, to be sampled like any other; a codec that came along lies beside it."""

    def __init__(self, module: GenzooModel) -> None:
        said: Mapping[str, Any] = module.config
        folder = Path(str(said.get("_name_or_path") or ""))
        recipe = dict(said["recipe"])
        recipe["codec"] = {
            **(recipe.get("codec") or {}),
            **carried_in(folder, recipe.get("codec") or {}),
        } or None
        facts = (said["step"], said["weights"], said["classes"])
        exported = Exported(folder, said["architecture"], recipe, *facts)
        super().__init__(folder, recipe_of(exported), exported)
        self.module = module

    def described(self, checkpoint: Path, weights: Any = None) -> dict[str, Any]:
        """The step and kind of the weights; they may have been changed in memory, so there is no hash."""
        return {"step": self.step, "weights": self.exported.weights}

    def task(self, *, weights: Any = None, checkpoint: Any = None, device: Any = None) -> Task:
        """The task around the module, where the module is."""
        self.choose(self.checkpoint(checkpoint), weights)
        place = str(next(self.module.parameters()).device)
        if "task" not in self._tasks:
            self._tasks = {"task": assemble(self.plan, build_codec(self.plan), self.module.model)}
        return ready(self._tasks["task"], place)
