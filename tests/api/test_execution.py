"""How a network runs in sampling: compiled, replayed, in TF32; told, refused, and taken back."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recipe_cases import TINY
from torch import Tensor, nn

from genzoo.api.evaluation.stated import sampling_of
from genzoo.api.recipes.plan import plan_of
from genzoo.api.run import Run
from genzoo.api.sampling import execution
from genzoo.api.sampling.execution import Execution
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.recipe import recipe_from
from genzoo.nn import cuda_graphs
from genzoo.nn.compiled import compiled, is_compiled


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Tracing only; what was traced is counted."""
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        calls.append(1)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(execution, "compiled", partial(compiled, backend=backend))
    yield calls
    torch.compiler.reset()


def test_compiled_samples_are_the_same_but_for_rounding_and_say_so(
    trained: Run, tmp_path: Path, quick_compiler: list[int]
) -> None:
    plain = trained.sample(num=2)
    samples = trained.sample(num=2, compile=True)
    assert quick_compiler
    torch.testing.assert_close(samples.pixels, plain.pixels, atol=1e-4, rtol=0)
    assert samples.settings == {**plain.settings, "compile": True}
    again = trained.sample(num=2)  # the same task, no longer compiled
    assert torch.equal(again.pixels, plain.pixels)
    assert not is_compiled(trained.data.task().model)
    folder = trained.sample_to(tmp_path / "out", num=2, compile=True)
    assert json.loads((folder / "samples.json").read_text())["compile"] is True
    with pytest.raises(UsageError, match="differs in compile: true there"):
        trained.sample_to(tmp_path / "out", num=2)


def test_a_recipe_may_say_how_its_samples_are_made() -> None:
    said = plan_of(recipe_from({**TINY, "sampler": {**TINY["sampler"], "compile": True, "allow_tf32": True}}))
    assert Execution.chosen(said.sampling) == Execution(compile=True, allow_tf32=True)
    assert Execution.chosen(said.sampling, compile=False).described() == {"allow_tf32": True}
    with pytest.raises(RecipeError, match=r"sampler\.cuda_graphs"):
        plan_of(recipe_from({**TINY, "sampler": {**TINY["sampler"], "cuda_graphs": "yes"}}))


def test_an_evaluation_states_it(trained: Run) -> None:
    stated = sampling_of(trained.data, trained.checkpoint(), 0, "ema", {"compile": True})
    assert stated["compile"] is True
    assert "compile" not in sampling_of(trained.data, trained.checkpoint(), 0, "ema", {})


def test_tf32_is_allowed_for_a_while_and_has_no_effect_on_a_cpu(
    trained: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with execution.executed(trained.data.task(), Execution(allow_tf32=True)):
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert "allow_tf32 has no effect on cpu" in caplog.text


def test_graphs_need_a_gpu_and_a_model_that_can_be_replayed(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cuda_graphs: the model is on cpu"):
        trained.sample_to(tmp_path / "out", num=1, cuda_graphs=True)
    assert not (tmp_path / "out").exists()
    with (
        pytest.raises(UsageError, match="a Linear cannot be replayed"),
        cuda_graphs.replayed(nn.Linear(2, 3)),
    ):
        pass


class FakeGraph:
    """Replays the last recorded calls of `forward` on the tensors that they were recorded with."""

    def __init__(self) -> None:
        self.replays = 0
        self.launches: list[tuple[Tensor, ...]] = []

    def replay(self) -> None:
        self.replays += 1
        for output, *inputs in self.launches:
            output.copy_(double_plus(*inputs))


def double_plus(x: Tensor, y: Tensor) -> Tensor:
    return 2 * x + y


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[FakeGraph], list[int]]:
    """A recorder of `double_plus` on a device that records launches."""
    graphs: list[FakeGraph] = []
    calls: list[int] = []
    recording: list[FakeGraph] = []

    def forward(x: Tensor, y: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is None
        calls.append(len(x))
        output = double_plus(x, y)
        for graph in recording:
            graph.launches.append((output, x, y))
        return output

    @contextlib.contextmanager
    def record(graph: FakeGraph) -> Iterator[None]:
        recording.append(graph)
        yield
        recording.clear()

    def make() -> FakeGraph:
        graphs.append(FakeGraph())
        return graphs[-1]

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes: dict[str, Any] = {"CUDAGraph": make, "Stream": lambda: stream, "current_stream": lambda: stream}
    fakes |= {"stream": lambda _: contextlib.nullcontext(), "graph": record}
    for name, fake in fakes.items():
        monkeypatch.setattr(cuda_graphs.torch.cuda, name, fake)
    return cuda_graphs._Recorder(forward), graphs, calls


def test_each_shape_is_recorded_once_and_then_replayed(recorder: Any) -> None:
    recorded, graphs, calls = recorder
    generator = torch.Generator().manual_seed(0)
    kept = []
    for batch in (2, 3, 2, 2):
        x, y = (torch.randn(batch, 5, generator=generator) for _ in range(2))
        kept.append((recorded(x, y, None), double_plus(x, y)))
    for found, expected in kept:  # an output outlives the calls after it
        torch.testing.assert_close(found, expected)
    assert [graph.replays for graph in graphs] == [3, 1]
    assert calls == [2] * (cuda_graphs.WARM_UP + 1) + [3] * (cuda_graphs.WARM_UP + 1)


def test_long_sampling_says_how_often_the_network_ran(
    trained: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(execution, "counting", partial(execution.counting, every=0.0))
    with caplog.at_level(logging.INFO):
        trained.sample(num=2, steps=3)
    told = [text for text in caplog.messages if "the network ran" in text]
    assert [text.split()[4] for text in told] == [str(count) for count in range(1, len(told) + 1)]
    assert len(told) >= 3
    assert not trained.task().model._forward_pre_hooks
