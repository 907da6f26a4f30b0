"""A run's networks as graphs in a folder: every part a file, and graphs.json, which says what they take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.runs.graphs.onnx_file import write_onnx
from genzoo.api.runs.graphs.torch_files import portable_scans, write_exported, write_torchscript
from genzoo.core.claims import claim_folder, require_utf8
from genzoo.core.contracts import able
from genzoo.core.contracts.models import GivesGraphs
from genzoo.core.contracts.tasks import HasCodec
from genzoo.core.errors import NonFiniteError, UsageError
from genzoo.core.files import write_folder, write_json
from genzoo.core.progress import doing
from genzoo.nn.graphs import Graph

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.core.types import Task

ABOUT = "graphs.json"
FORMATS = {"onnx": write_onnx, "exported": write_exported, "torchscript": write_torchscript}
SUFFIXES = {"onnx": ".onnx", "exported": ".pt2", "torchscript": ".pt"}
ROWS = 3  # of the check: another number than the example's
TOLERANCE = 1e-5  # of the largest output


@dataclass(frozen=True)
class GraphFile:
    """inputs, output: names with shapes, the first axis being free.   difference: largest one from genzoo."""

    file: str
    inputs: dict[str, list[Any]]
    output: dict[str, list[Any]]
    difference: float


def export_graphs(run: RunData, output: str | Path, *, layout: str, weights: Weights | None = None) -> Path:
    """Write the run's networks, float32 and for inference, into a new folder.

    layout: "onnx", "exported" (torch.export's .pt2) or "torchscript". Each file is run on another number of
    rows than it was traced with. Raises UsageError for a model that gives no graphs, NonFiniteError for a
    file whose numbers are not genzoo's.
    """
    require_utf8(output)
    claim_folder(output, what="graphs")
    task = run.task(weights=weights, device="cpu")
    graphs = _graphs(task)
    about: dict[str, Any] = {"run": run.recipe.name, "step": run.step, "layout": layout}
    about |= {"weights": run.choose(run.checkpoint(), weights)}
    about |= {"task": run.plan.task.section(), "model": run.plan.model.section()}

    def fill(folder: Path) -> None:
        files = {}
        for name, graph in graphs.items():
            with doing(f"exporting {name}"), torch.no_grad(), portable_scans(graph.module):
                files[name] = asdict(_written(graph, folder / (name + SUFFIXES[layout]), layout))
        write_json(folder / ABOUT, {**about, "graphs": files})

    return write_folder(output, fill)


def _graphs(task: Task) -> dict[str, Graph]:
    """Those of the model, and of its codec."""
    giving = able(task.model, GivesGraphs)
    if giving is None:
        raise UsageError(
            f"a {type(task.model).__name__} cannot be exported as a graph",
            fix="leave --to out: the weights, which genzoo reads",
        )
    coded = able(task, HasCodec)
    decoding = None if coded is None else able(coded.codec, GivesGraphs)
    return {**giving.graphs(), **({} if decoding is None else decoding.graphs())}


def _written(graph: Graph, path: Path, layout: str) -> GraphFile:
    graph.module.eval()
    run = FORMATS[layout](graph, path)
    inputs = [_other_rows(example) for example in graph.inputs]
    expected, found = graph.module(*inputs), run(inputs)
    difference = float((expected - found).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise NonFiniteError(f"{path.name} gives other numbers than the model, by up to {difference:.3g}")
    named = zip(graph.names, graph.inputs, strict=True)
    shapes = {name: _shape(example) for name, example in named}
    return GraphFile(path.name, shapes, {graph.output: _shape(expected)}, difference)


def _shape(example: torch.Tensor) -> list[Any]:
    return ["rows", *example.shape[1:], str(example.dtype).removeprefix("torch.")]


def _other_rows(example: torch.Tensor) -> torch.Tensor:
    """Noise of the example's kind, or its numbers where they are whole."""
    rows = example[:1].expand(ROWS, *example.shape[1:]).contiguous()
    if not example.is_floating_point():
        return rows
    return torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
