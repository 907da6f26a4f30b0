"""Graphs: the numbers of genzoo to 1e-5, for any number of rows, and nothing about where they were made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from smallest_graphs import EXPORTED, model_of, noise_for
from torch import Tensor

from genzoo.api.run import Run
from genzoo.api.runs.conversion import export
from genzoo.api.runs.graphs.graph_files import ABOUT, FORMATS, export_graphs
from genzoo.api.runs.graphs.onnx_file import write_onnx
from genzoo.api.runs.graphs.torch_files import portable_scans
from genzoo.cli import main
from genzoo.core.errors import MissingDependencyError, NonFiniteError, UsageError
from genzoo.nn.graphs import Graph

TOLERANCE = 1e-5


def written(graph: Graph, path: Path, layout: str = "onnx") -> Callable[..., Tensor]:
    with torch.no_grad(), portable_scans(graph.module):
        return FORMATS[layout](graph, path)


def largest_difference(graph: Graph, run: Callable[..., Tensor], rows: int) -> float:
    inputs = noise_for(graph, rows)
    with torch.no_grad():
        return float((graph.module(*inputs) - run(inputs)).abs().max())


@pytest.mark.parametrize("name", EXPORTED)
def test_onnxruntime_gives_the_same_numbers_for_any_number_of_rows(tmp_path: Path, name: str) -> None:
    for part, graph in model_of(name).graphs().items():
        path = tmp_path / f"{part}.onnx"
        run = written(graph, path)
        assert max(largest_difference(graph, run, rows) for rows in (1, 3)) < TOLERANCE
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
        rows = {value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.input}
        assert len(rows) == 1
        assert all(rows)
        content = path.read_bytes()
        for trace in (b".py", b"site-packages", str(Path.cwd()).encode(), b"torch.nn"):
            assert trace not in content


def test_the_scan_is_one_node_for_each_direction(tmp_path: Path) -> None:
    written(model_of("dim").graphs()["model"], tmp_path / "dim.onnx")
    functions = {f.name: f for f in onnx.load(tmp_path / "dim.onnx").functions}
    assert {*functions} == {"SelectiveScan", "SelectiveScanReverse"}
    for function in functions.values():
        assert [node.op_type for node in function.node].count("Scan") == 1


@pytest.mark.parametrize("layout", ["exported", "torchscript"])
def test_torch_reads_its_own_formats(tmp_path: Path, layout: str) -> None:
    graph = model_of("dim").graphs()["model"]
    run = written(graph, tmp_path / "dim.file", layout)
    assert max(largest_difference(graph, run, rows) for rows in (1, 3)) < TOLERANCE


def test_a_run_becomes_a_folder_that_says_what_it_holds(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", str(trained.folder), str(tmp_path / "out"), "--to", "onnx"])
    assert not stop.value.code
    about = json.loads((tmp_path / "out" / ABOUT).read_text())
    assert (about["run"], about["step"], about["weights"]) == ("tiny", 6, "ema")
    said = about["graphs"]["model"]
    assert said["inputs"] == {
        "x": ["rows", 1, 8, 8, "float32"],
        "timesteps": ["rows", "float32"],
        "class_labels": ["rows", "int64"],
    }
    assert said["difference"] < TOLERANCE
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / said["file"]))
    fed = {"x": np.zeros((2, 1, 8, 8), np.float32), "timesteps": np.ones(2, np.float32)}
    assert session.run(None, {**fed, "class_labels": np.array([3, 10])})[0].shape == (2, 1, 8, 8)
    with pytest.raises(UsageError, match="holds files already"):
        export(trained, tmp_path / "out", layout="onnx")
    with pytest.raises(UsageError, match="--to onnx writes float32 graphs"):
        export(trained, tmp_path / "half", layout="onnx", half=True)


def test_the_example_that_samples_needs_neither_torch_nor_genzoo() -> None:
    page = (Path(__file__).parents[2] / "docs/howto/export.md").read_text(encoding="utf-8")
    block = page.rpartition("```python\n")[2]
    assert "onnxruntime.InferenceSession" in block
    imported = {line.split()[1].partition(".")[0] for line in block.splitlines() if "import " in line}
    assert imported == {"json", "pathlib", "numpy", "onnxruntime", "PIL"}


def test_other_numbers_are_an_error_and_leave_nothing(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "onnx", lambda graph, path: lambda inputs: torch.ones(3, 1, 8, 8))
    with pytest.raises(NonFiniteError, match=r"model\.onnx gives other numbers than the model"):
        export_graphs(trained, tmp_path / "out", layout="onnx")
    assert not (tmp_path / "out").exists()


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"genzoo\[onnx\]"):
        write_onnx(model_of("dit").graphs()["model"], tmp_path / "dit.onnx")


def test_a_model_without_graphs_is_refused(
    trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task: Any = trained.data.task(device="cpu")
    monkeypatch.setattr(task, "model", torch.nn.Linear(2, 3))
    with pytest.raises(UsageError, match="a Linear cannot be exported as a graph"):
        export_graphs(trained, tmp_path / "out", layout="onnx")
