"""What stands in a file that `genzoo export` wrote in genzoo's own layout: weights, model and recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.contracts import able
from genzoo.core.contracts.models import StartsFrom
from genzoo.core.model_state import require_same
from genzoo.core.reading import read_record
from genzoo.core.tensor_files import look, open_tensors, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL, RECIPE, LAYOUT = "genzoo_model", "genzoo_recipe", "genzoo_layout"
CLASSES = "genzoo_classes"
COMPONENT, CONFIG, TENSORS = "transformer", "config.json", "diffusion_pytorch_model.safetensors"
"""Where the model is in the folder of a pipeline of diffusers."""
IN_PIPELINE, PREFIX = "GenzooModel", "model."  # its class there, and what its tensors' names begin with
NOT_SAMPLED = ("preview", "held_out", "evaluation", "report")  # may name places of one machine


@dataclass(frozen=True)
class Exported:
    """model: its section of a recipe.   recipe: all of it without the data; None in a file of older genzoo.

    step: of the checkpoint.   weights: "ema" or "raw".   classes: their names by label.   prefix: of the
    tensors' names in the file.
    """

    path: Path
    model: Mapping[str, Any]
    recipe: Mapping[str, Any] | None
    step: int
    weights: str
    classes: list[str] | None = None
    prefix: str = ""

    def load_into(self, model: nn.Module) -> None:
        """Copy the weights into a model; halves become what it computes in. Raises CheckpointError."""
        targets = model.state_dict()
        tensors = {
            name: value.to(targets[name].dtype) if name in targets else value
            for name, value in self._tensors().items()
        }
        require_same(targets, tensors, where=str(self.path), what="the model")
        model.load_state_dict(tensors)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = read_tensors(self.path)
        return {name.removeprefix(self.prefix): tensor for name, tensor in tensors.items()}


def metadata_of(model: Mapping[str, Any], recipe: Mapping[str, Any], **facts: str) -> dict[str, str]:
    """The metadata of an exported file. recipe: its data, which lie on one machine, are left out."""
    return {"format": "pt", MODEL: json.dumps(model), RECIPE: json.dumps(without_data(recipe)), **facts}


def without_data(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe sampling needs beside the model: not its data, but for their name."""
    kept = {key: value for key, value in recipe.items() if key not in ("model", "init_from", *NOT_SAMPLED)}
    data = recipe.get("data")
    kept["data"] = {"name": data.get("name") if isinstance(data, Mapping) else None}
    return kept


def without_start(section: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """A model's section without what only says where its first weights came from."""
    starting = able(model, StartsFrom)
    left_out = () if starting is None else starting.starts_from
    return {key: value for key, value in section.items() if key not in left_out}


def layout_of(path: Path) -> str | None:
    """The layout of others that `export` wrote a file in; None for our own, and for files of others."""
    with open_tensors(path) as file:
        found = file.metadata() or {}
    return found.get(LAYOUT) if MODEL in found else None


def read_exported(path: Path) -> Exported | None:
    """What a file says of itself; None unless `export` wrote it in genzoo's own layout. Reads no tensor."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    said = look(path, _parsed)
    if said is None:
        return None  # damaged, or somebody's: the reader of the tensors says which
    found, model, recipe, classes = said
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        return None
    step = found.get("genzoo_step", "0")
    return Exported(
        path,
        model,
        recipe if isinstance(recipe, dict) else None,
        int(step) if step.isdigit() else 0,
        found.get("genzoo_weights", "raw"),
        names_in(classes),
    )


def read_pipeline(folder: Path) -> Exported | None:
    """What the folder of a pipeline that `export` wrote says of itself; None for others. Reads no tensor."""
    said = read_record(folder / COMPONENT / CONFIG)
    model, recipe, step = said.get("architecture"), said.get("recipe"), said.get("step")
    if said.get("_class_name") != IN_PIPELINE or not isinstance(recipe, dict):
        return None
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        return None
    file = folder / COMPONENT / TENSORS
    known = step if isinstance(step, int) else 0
    return Exported(
        file, model, recipe, known, str(said.get("weights")), names_in(said.get("classes")), PREFIX
    )


def _parsed(file: Any) -> tuple[dict[str, str], Any, Any, Any] | None:
    """Metadata of our own layout, with the model, the recipe and the classes in them."""
    found = file.metadata() or {}
    if MODEL not in found or LAYOUT in found:
        return None
    texts = (found[MODEL], found.get(RECIPE, "null"), found.get(CLASSES, "null"))
    model, recipe, classes = (json.loads(text) for text in texts)
    return found, model, recipe, classes


def names_in(value: object) -> list[str] | None:
    """Class names as they were stored; None for anything else."""
    return value if isinstance(value, list) and all(isinstance(name, str) for name in value) else None
