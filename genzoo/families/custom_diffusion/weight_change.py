"""How far training moved each layer of a base: the paper's Figure 3, why keys and values suffice."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import MissingDependencyError
from genzoo.core.files import write_file, write_json
from genzoo.core.optional import require
from genzoo.core.types import MeasuredRun
from genzoo.pretrained.text_to_image import load_parts

KINDS = {"cross-attention": ".attn2.", "self-attention": ".attn1."}
REST = "other layers"
COLOURS = {"cross-attention": "#d9622b", "self-attention": "#2f6fdf", REST: "#7a6a58"}


@dataclass(frozen=True)
class LayerChange:
    """One layer.   kind: of KINDS or REST.   change: |w' - w| / |w| over all its parameters."""

    layer: str
    kind: str
    change: float
    parameters: int


def weight_change(run: MeasuredRun) -> dict[str, Any]:
    """Mean change of the layers of each kind, and the share of all parameters that the kind has.

    Meant for runs with model.freeze_mode=all; otherwise what is frozen has changed by 0. Every layer is in
    RUN/weight_change.json, and drawn in RUN/weight_change.svg where matplotlib is there (extra "plots").
    """
    task: Any = run.task()
    with torch.random.fork_rng(devices=[]):  # layers draw weights before those of the file replace them
        before = load_parts(task.parts.source).unet.state_dict()
    layers = layer_changes(before, task.model.unet.state_dict())
    write_json(run.folder / "weight_change.json", [asdict(layer) for layer in layers])
    found: dict[str, Any] = {}
    total = sum(layer.parameters for layer in layers)
    for kind in (*KINDS, REST):
        own = [layer for layer in layers if layer.kind == kind]
        name = kind.replace("-", "_").replace(" ", "_")
        found[f"{name}_change"] = sum(layer.change for layer in own) / max(len(own), 1)
        found[f"{name}_share"] = sum(layer.parameters for layer in own) / total
    return found | _picture(run, layers)


def layer_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[LayerChange]:
    """Each layer of a UNet, in the order of its names; one that was all 0 before is left out."""
    layers: dict[str, list[str]] = {}
    for name in before:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return [change for layer, names in layers.items() for change in _change(layer, names, before, after)]


def _change(
    layer: str, names: list[str], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> Iterator[LayerChange]:
    old = torch.cat([before[name].flatten().double().cpu() for name in names])
    new = torch.cat([after[name].flatten().double().cpu() for name in names])
    kind = next((kind for kind, part in KINDS.items() if part in f"{layer}."), REST)
    if old.any():
        yield LayerChange(layer, kind, float((new - old).norm() / old.norm()), len(old))


def _picture(run: MeasuredRun, layers: list[LayerChange]) -> dict[str, str]:
    try:
        figure = require("matplotlib.figure", extra="plots").Figure(figsize=(8, 3.2), layout="constrained")
    except MissingDependencyError as error:
        return {"picture": f"not drawn: {error.fix}"}
    axes, buffer = figure.add_subplot(), io.BytesIO()
    for kind, colour in COLOURS.items():
        own = [(place, layer.change) for place, layer in enumerate(layers) if layer.kind == kind]
        if own:
            axes.scatter(*zip(*own, strict=True), s=9, color=colour, label=kind)
            axes.axhline(sum(change for _, change in own) / len(own), color=colour, linewidth=0.8)
    axes.set(xlabel="layer, in the order of the model", ylabel="|w' - w| / |w|")
    axes.legend(frameon=False, fontsize=8)
    with require("matplotlib", extra="plots").rc_context({"svg.hashsalt": "genzoo", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    path = run.folder / "weight_change.svg"
    write_file(path, buffer.getvalue())
    return {"picture": str(path)}
