"""The selective scan in ONNX: the standard operator `Scan`, inside a function of the file's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from genzoo.core.optional import require
from genzoo.kernels.scan.graph_scan import scan_in_a_graph

DOMAIN, OPSET = "genzoo", 18
NAMES = {False: "SelectiveScan", True: "SelectiveScanReverse"}


def translations() -> dict[Any, Any]:
    """For torch.onnx: calls of the scan's operator become calls of the functions below."""
    import torch

    OpSchema = require("onnx.defs", extra="onnx").OpSchema
    values = require("onnxscript.values", extra="onnx")

    tensors = [OpSchema.FormalParameter(name, "T") for name in ["u", "dt", "A", "B", "C", "y"]]
    options: dict[str, Any] = {"inputs": tensors[:5], "outputs": tensors[5:]}
    options["type_constraints"] = [("T", ["tensor(float)"], "float32")]

    def translate(u: Any, dt: Any, A: Any, B: Any, C: Any, reverse: bool) -> Any:
        name = NAMES[bool(reverse)]
        return values.Op(values.Opset(DOMAIN, 1), name, OpSchema(name, DOMAIN, 1, **options))(u, dt, A, B, C)

    assert scan_in_a_graph  # its module defines the operator
    return {torch.ops.genzoo.scan_in_a_graph.default: translate}


def scan_functions() -> list[Any]:
    """FunctionProtos of both directions: (u, dt, A, B, C) -> y, shapes as in `scan_in_a_graph`."""
    return [_function(reverse) for reverse in (False, True)]


def _function(reverse: bool) -> Any:
    helper = require("onnx.helper", extra="onnx")
    node = helper.make_node
    nodes = [
        node("Transpose", ["A"], ["rates"], perm=[1, 0]),
        node("Shape", ["u"], ["rows"], start=0, end=1),
        node("Shape", ["rates"], ["sizes"]),
        node("Concat", ["rows", "sizes"], ["state_shape"], axis=0),
        node("ConstantOfShape", ["state_shape"], ["nothing"]),
        node(
            "Scan",
            ["nothing", "u", "dt", "B", "C"],
            ["last", "y"],
            body=_body(),
            num_scan_inputs=4,
            scan_input_axes=[1] * 4,
            scan_output_axes=[1],
            scan_input_directions=[int(reverse)] * 4,
            scan_output_directions=[int(reverse)],
        ),
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, NAMES[reverse], ["u", "dt", "A", "B", "C"], ["y"], nodes, opsets)


def _body() -> Any:
    """One step.   h: (b, n, d).   u_t, dt_t: (b, d).   B_t, C_t: (b, n); `rates` (n, d) is outside."""
    helper = require("onnx.helper", extra="onnx")
    number = require("onnx", extra="onnx").TensorProto.FLOAT

    def typed(name: str) -> Any:
        return helper.make_tensor_value_info(name, number, None)

    node = helper.make_node
    nodes = [
        _constant("rows_axis", [1]),
        _constant("last_axis", [2]),
        node("Unsqueeze", ["dt_t", "rows_axis"], ["dt_row"]),
        node("Mul", ["dt_row", "rates"], ["exponent"]),
        node("Exp", ["exponent"], ["decay"]),
        node("Mul", ["dt_t", "u_t"], ["drive"]),
        node("Unsqueeze", ["drive", "rows_axis"], ["drive_row"]),
        node("Unsqueeze", ["B_t", "last_axis"], ["B_column"]),
        node("Mul", ["B_column", "drive_row"], ["added"]),
        node("Mul", ["decay", "h"], ["kept"]),
        node("Add", ["kept", "added"], ["h_next"]),
        node("Unsqueeze", ["C_t", "rows_axis"], ["C_row"]),
        node("MatMul", ["C_row", "h_next"], ["y_row"]),
        node("Squeeze", ["y_row", "rows_axis"], ["y_t"]),
    ]
    inputs = [typed(name) for name in ("h", "u_t", "dt_t", "B_t", "C_t")]
    return helper.make_graph(nodes, "step", inputs, [typed("h_next"), typed("y_t")])


def _constant(name: str, values: list[int]) -> Any:
    helper = require("onnx.helper", extra="onnx")
    value = require("onnx.numpy_helper", extra="onnx").from_array(np.array(values, np.int64), name)
    return helper.make_node("Constant", [], [name], value=value)
