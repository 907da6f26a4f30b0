"""The scan on a CPU: speed against peers, memory, growth with length, accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import compare, interleave, peak_memory
from benchmarks.registry import Options, case
from benchmarks.scans import (
    NAMES,
    channels_first,
    mambapy_scan,
    n_first_scan,
    relative_gap,
    require_close,
    scan_inputs,
    stock_reference_scan,
    transformers_scan,
    values,
)
from genzoo.kernels import selective_scan

BATCH, WIDTH = 4, 768


def ours(inputs: dict[str, Tensor], backend: str) -> Callable[[], Any]:
    """A call of our scan."""
    return lambda: selective_scan(**inputs, delta_softplus=True, backend=backend)


def with_backward(forward: Callable[[], Tensor], inputs: dict[str, Tensor]) -> Callable[[], Any]:
    """Forward and the gradient of every input."""

    def run() -> Any:
        out = forward()
        return torch.autograd.grad(out, list(inputs.values()), torch.ones_like(out))

    return run


@case("selective_scan")
def selective_scan_forward(options: Options) -> list[dict[str, Any]]:
    """Forward of the scan at (4, l, 768), 16 states, against every peer; clock=cpu."""
    rows = []
    for length in (256, 1024):
        inputs = scan_inputs(BATCH, length, WIDTH)
        other = channels_first(inputs)
        with torch.no_grad():
            expected = ours(inputs, "reference")()
            require_close("cpu", ours(inputs, "cpu")(), expected, 1e-6)
            require_close("torch", ours(inputs, "torch")(), expected, 1e-6)
            require_close("n-first loop", n_first_scan(*values(inputs)), expected, 1e-6)
            require_close("mambapy", mambapy_scan(*values(inputs)), expected, 1e-5)
            require_close("stock", stock_reference_scan(*values(other)).transpose(1, 2), expected, 1e-5)
            require_close("transformers", transformers_scan(*values(other)).transpose(1, 2), expected, 1e-5)
            fast = {
                "genzoo cpu": ours(inputs, "cpu"),
                "genzoo torch": ours(inputs, "torch"),
                "n-first loop": lambda inputs=inputs: n_first_scan(*values(inputs)),
                "mambapy": lambda inputs=inputs: mambapy_scan(*values(inputs)),
                "transformers": lambda other=other: transformers_scan(*values(other)),
                "stock reference": lambda other=other: stock_reference_scan(*values(other)),
            }
            seconds = interleave(fast, options.repeats, clock=options.settings.get("clock", "wall"))
        row = compare("genzoo cpu", {k: v for k, v in seconds.items() if k != "genzoo torch"})
        torch_row = compare("genzoo torch", {k: v for k, v in seconds.items() if k != "genzoo cpu"})
        rows.append({"name": f"forward cpu l={length}", **row, "target": "80 at 1024"})
        rows.append({"name": f"forward torch l={length}", **torch_row, "target": "8 at 1024"})
    return rows


@case("selective_scan_backward")
def selective_scan_backward(options: Options) -> list[dict[str, Any]]:
    """Forward and backward at (4, l, 768), 16 states, against mambapy, and the extra peak memory; clock=."""
    rows = []
    for length, target in ((256, 60), (1024, 100)):
        inputs = scan_inputs(BATCH, length, WIDTH, requires_grad=True)
        own = with_backward(ours(inputs, "cpu"), inputs)
        peer = with_backward(lambda inputs=inputs: mambapy_scan(*values(inputs)), inputs)
        for name, grad, expected in zip(NAMES, own(), peer(), strict=True):
            require_close(name, grad, expected, 1e-4)
        calls, clock = {"genzoo cpu": own, "mambapy": peer}, options.settings.get("clock", "wall")
        seconds = interleave(calls, max(2, options.repeats // 2), clock=clock)
        row = compare("genzoo cpu", seconds)
        memory = {name: memory_of(name, length) for name in ("cpu", "mambapy")}
        row |= {"extra_mb": memory, "memory_ratio": memory["mambapy"] / memory["cpu"]}
        rows.append({"name": f"forward+backward l={length}", **row, "target": f"{target}, memory 25"})
    return rows


def memory_of(name: str, length: int) -> float:
    """Extra peak MB of one forward and backward in a fresh process."""
    setup = f"""
from benchmarks.scans import *
from genzoo.kernels import selective_scan
torch.set_num_threads(1)
def run(inputs):
    ours = {name!r} == "cpu"
    own = lambda: selective_scan(**inputs, delta_softplus=True, backend="cpu")
    out = own() if ours else mambapy_scan(*values(inputs))
    return torch.autograd.grad(out, list(inputs.values()), torch.ones_like(out))
run(scan_inputs(1, 4, 8, requires_grad=True))
inputs = scan_inputs({BATCH}, {length}, {WIDTH}, requires_grad=True)
"""
    return peak_memory(setup, "grads = run(inputs)")


@case("scan_length")
def scan_length(options: Options) -> list[dict[str, Any]]:
    """Growth of the forward at (1, l, 768) up to 65,536 tokens: four times the length, how much time."""
    lengths = (1024, 4096, 16384, 65536)
    with torch.no_grad():
        calls = {str(length): ours(scan_inputs(1, length, WIDTH), "cpu") for length in lengths}
        seconds = interleave(calls, options.repeats)
    best = {name: min(times) for name, times in seconds.items()}
    growth = {f"{a}->{b}": best[str(b)] / best[str(a)] for a, b in itertools.pairwise(lengths)}
    return [{"name": "forward cpu", **compare("1024", seconds), "growth": growth, "target": "4.2"}]


@case("scan_accuracy")
def scan_accuracy(options: Options) -> list[dict[str, Any]]:
    """Relative L2 distance to the float64 reference, output and every gradient."""
    rows = []
    inputs = scan_inputs(2, 64, 100, requires_grad=True)
    exact = {k: v.detach().double().requires_grad_() for k, v in inputs.items()}
    weights = torch.randn(2, 64, 100, generator=torch.Generator().manual_seed(1))
    expected = ours(exact, "reference")()
    grads = torch.autograd.grad(expected, list(exact.values()), weights.double())
    for backend in ("cpu", "torch"):
        out = ours(inputs, backend)()
        found = torch.autograd.grad(out, list(inputs.values()), weights)
        gaps = {name: relative_gap(a, b) for name, a, b in zip(NAMES, found, grads, strict=True)}
        row = {"output": require_close(backend, out, expected, 2e-7), "worst_gradient": max(gaps.values())}
        rows.append({"name": backend, **row, "gradients": gaps, "target": "2e-7, gradients 2e-6"})
    return rows
