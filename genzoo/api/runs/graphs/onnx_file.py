"""An ONNX file: standard operators alone, any number of rows, and nothing about where it was made."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.api.runs.graphs.onnx_scan import DOMAIN, OPSET, scan_functions, translations
from genzoo.api.runs.graphs.torch_files import traced
from genzoo.core.errors import ShapeError
from genzoo.core.optional import require
from genzoo.nn.graphs import Graph

BESIDE = 1_900_000_000  # bytes of weights above which they lie beside the file: a protobuf ends at 2 GB


def write_onnx(graph: Graph, path: Path) -> Callable[[Sequence[Tensor]], Tensor]:
    """Write the file; what runs it with onnxruntime. Raises MissingDependencyError without the extra."""
    require("onnxscript", extra="onnx")  # by torch.onnx
    onnx, onnxruntime = require("onnx", extra="onnx"), require("onnxruntime", extra="onnx")
    proto = _converted(graph)
    weights = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    beside = {"save_as_external_data": True, "location": f"{path.name}.data"} if weights > BESIDE else {}
    onnx.save(proto, str(path), **beside)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: Sequence[Tensor]) -> Tensor:
        fed = {name: value.numpy() for name, value in zip(graph.names, inputs, strict=True)}
        return torch.from_numpy(session.run([graph.output], fed)[0])

    return run


def _converted(graph: Graph) -> Any:
    """The ModelProto."""
    program = traced(graph)
    with redirect_stdout(io.StringIO()):  # torch.onnx tells its steps
        converted = torch.onnx.export(
            program,
            dynamo=True,
            custom_translation_table=translations(),
            opset_version=OPSET,
            input_names=list(graph.names),
            output_names=[graph.output],
            verbose=False,
        )
    assert converted is not None
    proto = converted.model_proto
    if any(node.domain == DOMAIN for node in proto.graph.node):
        proto.functions.extend(scan_functions())
    for part in _parts(proto):
        for field in ("metadata_props", "doc_string", "producer_name", "producer_version"):
            if field in part.DESCRIPTOR.fields_by_name:
                part.ClearField(field)
    _require_free_rows([*proto.graph.input, *proto.graph.output])
    return proto


def _parts(proto: Any) -> Iterator[Any]:
    """Everything in a model that may say where it came from."""
    yield proto
    graphs = [proto.graph]
    for graph in graphs:
        yield graph
        yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
        graphs += [
            attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")
        ]
        yield from graph.node
    for function in proto.functions:
        yield function
        yield from function.node


def _require_free_rows(values: Sequence[Any]) -> None:
    fixed = [value.name for value in values if not value.type.tensor_type.shape.dim[0].dim_param]
    if fixed:
        raise ShapeError(f"the graph is for one number of rows only: {', '.join(fixed)}")
