"""A model whose forward pass is recorded on a GPU and replayed: few samples are bound by launches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import ReplaysForward
from genzoo.core.errors import UsageError

WARM_UP = 3  # calls before the recording: libraries load, and kernels measure their tiles, at the first ones
Key = tuple[object, ...]


@contextlib.contextmanager
def replayed(model: nn.Module) -> Iterator[None]:
    """Within the block, without gradients, each shape of inputs is recorded once and replayed from then on.

    Weights may change in place only. Outputs are copies, so that they outlive the next call. Raises
    UsageError off CUDA, and for a model that cannot be replayed.
    """
    device = next(model.parameters()).device
    able_model = able(model, ReplaysForward)
    if able_model is None or not able_model.replays_forward:
        raise UsageError(
            f"cuda_graphs: a {type(model).__name__} cannot be replayed",
            why="its calls depend on what was called before, or on more than tensors",
            fix="leave cuda_graphs out",
        )
    if device.type != "cuda":
        raise UsageError(
            f"cuda_graphs: the model is on {device.type}",
            why="only CUDA records launches",
            fix="leave cuda_graphs out",
        )
    vars(model)["forward"] = _Recorder(model.forward)
    try:
        yield
    finally:
        del vars(model)["forward"]


@dataclass(frozen=True)
class _Recording:
    """graph: launches that read `inputs` and write `output`."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor | None, ...]
    output: Tensor


class _Recorder:
    """The forward pass of a model, one recording for each shape, type and precision of its inputs."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward = forward
        self._recordings: dict[Key, _Recording] = {}

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        key = (*map(_kind, inputs), torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"))
        if key not in self._recordings:
            self._recordings[key] = self._record(inputs)
        found = self._recordings[key]
        for mine, given in zip(found.inputs, inputs, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        found.graph.replay()
        return found.output.clone()

    def _record(self, inputs: tuple[Tensor | None, ...]) -> _Recording:
        own = tuple(None if given is None else given.clone() for given in inputs)
        graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        with _uncached_casts():
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self.forward(*own)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(graph):
                output = self.forward(*own)
        return _Recording(graph, own, output)


def _kind(given: Tensor | None) -> Any:
    return None if given is None else (given.shape, given.dtype)


def _uncached_casts() -> contextlib.AbstractContextManager[Any]:
    """Autocast frees the 16-bit weights that it keeps when it ends, and a recording would still read them."""
    if not torch.is_autocast_enabled("cuda"):
        return contextlib.nullcontext()
    return torch.autocast("cuda", torch.get_autocast_dtype("cuda"), cache_enabled=False)
