"""Graphs in torch's own formats. Where a model scans, they hold an operator that importing genzoo defines."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.nn.graphs import Graph
from genzoo.nn.mamba import MambaMixer

Run = Callable[[Sequence[Tensor]], Tensor]


@contextlib.contextmanager
def portable_scans(model: nn.Module) -> Iterator[None]:
    """Within the block every scan and convolution is plain torch, but for one operator without a kernel."""
    mixers = [module for module in model.modules() if isinstance(module, MambaMixer)]
    kept = [mixer.scan_backend for mixer in mixers]
    for mixer in mixers:
        mixer.scan_backend = "torch"
    try:
        yield
    finally:
        for mixer, backend in zip(mixers, kept, strict=True):
            mixer.scan_backend = backend


def traced(graph: Graph) -> Any:
    """torch.export's program, for any number of rows."""
    rows = {0: torch.export.Dim.DYNAMIC}
    shapes = tuple(rows for _ in graph.inputs)
    # strict: the other way makes plain numbers of sizes, and then goes on with the example's
    return torch.export.export(graph.module, tuple(graph.inputs), dynamic_shapes=shapes, strict=True)


def write_exported(graph: Graph, path: Path) -> Run:
    """A .pt2 file, which torch.export.load reads; what runs it."""
    program = traced(graph)
    for node in program.graph.nodes:  # a file says nothing of where it was made
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(key, None)
    torch.export.save(program, str(path))
    loaded = torch.export.load(str(path)).module()
    return lambda inputs: loaded(*inputs)


def write_torchscript(graph: Graph, path: Path) -> Run:
    """A TorchScript file, which torch.jit.load reads; what runs it.

    Traced from the module: a program of torch.export keeps its number of rows when it is traced again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is old, and traces sizes as tensors
        jit: Any = torch.jit  # carries no types
        script = jit.trace(graph.module, tuple(graph.inputs), check_trace=False)
        jit.save(script, str(path))
        loaded = jit.load(str(path))
    return lambda inputs: loaded(*inputs)
