"""What the sections of the GPU day share: the device, the clock, and errors that stay with their case."""

from __future__ import annotations

import contextlib
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Bench:
    """tiny: small sizes on the CPU, to find mistakes.   failures: names of cases that went wrong."""

    tiny: bool
    failures: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to time."""
        return torch.cuda.is_available() and not self.tiny

    @property
    def device(self) -> str:
        """Where everything lies."""
        return "cuda" if self.on_gpu else "cpu"

    @contextlib.contextmanager
    def noted(self, found: dict[str, Any], name: str) -> Iterator[None]:
        """Keep an error as the result of its case."""
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error}"[:400]
            found[name] = {"error": said, "at": f"{last.name}:{last.lineno}"}
            self.failures.append(name)

    def wait(self) -> None:
        """Until everything that was launched is done."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def milliseconds(
        self, function: Callable[[], object], *, repeats: int = 20, warm: int = 3
    ) -> dict[str, float]:
        """Median and spread of a call; once, and by the clock, without a GPU."""
        for _ in range(1 if self.tiny else warm):
            function()
        self.wait()
        if not self.on_gpu:
            started = time.perf_counter()
            function()
            taken = [1e3 * (time.perf_counter() - started)]
        else:
            taken = self._by_events(function, repeats)
        return {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}

    def _by_events(self, function: Callable[[], object], repeats: int) -> list[float]:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for begin, end in pairs:
            begin.record()
            function()
            end.record()
        self.wait()
        return [begin.elapsed_time(end) for begin, end in pairs]

    def replayed(self, function: Callable[[], object], calls: int = 10) -> dict[str, float] | None:
        """The same per call without gaps between launches, from a CUDA graph; None without a GPU."""
        if not self.on_gpu:
            return None
        for _ in range(3):
            function()
        self.wait()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                function()
        return {key: value / calls for key, value in self.milliseconds(graph.replay).items()}

    def peak_gigabytes(self, function: Callable[[], object]) -> float | None:
        """Largest memory of a call; None without a GPU."""
        if not self.on_gpu:
            return None
        torch.cuda.reset_peak_memory_stats()
        function()
        self.wait()
        return torch.cuda.max_memory_allocated() / 1e9

    def autocast(self, *, half: bool) -> contextlib.AbstractContextManager[Any]:
        """bf16 products, or float32 ones."""
        return torch.autocast(self.device, torch.bfloat16, enabled=half, cache_enabled=False)


def gap(found: Tensor, wanted: Tensor) -> float:
    """Relative error in the root mean square, in float64."""
    exact = wanted.double()
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-30))
