"""Every model that names blocks to compile: one graph, the same numbers, and weights of the same names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from contract_cases import Case
from smallest import pairs
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import CompilesBlocks
from genzoo.core.errors import MissingDependencyError, UsageError
from genzoo.core.registry import MODELS
from genzoo.families.car.control.decoder import decoder_of
from genzoo.nn import compiled as compiling
from genzoo.nn.compiled import compile_blocks, compile_like, compiled, eagerly, is_compiled

TASK_OF = {model: task for task, model in reversed(list(pairs()))}
COMPILED = ["dim", "dit", "dim_video", "latte", "matten", "var", "car", "text_to_image"]
Cases = Callable[[str, str], Case]
every_model = pytest.mark.parametrize("name", COMPILED)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def model_of(case: Cases) -> Callable[[str], Any]:
    """A copy, in which every weight matters."""

    def build(name: str) -> Any:
        model = copy.deepcopy(case(TASK_OF[name], name).task.model)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model

    return build


def inputs_of(model: Any, batch: int = 2) -> tuple[Any, ...]:
    """Arguments of forward for some samples, noise in place of zeros."""
    generator = torch.Generator().manual_seed(1)

    def rows(given: Any) -> Any:
        if isinstance(given, list):
            return [rows(one) for one in given]
        if not isinstance(given, Tensor):
            return given
        shape = (batch, *given.shape[1:])
        if given.is_floating_point():
            return torch.randn(shape, generator=generator)
        return torch.randint(2, shape, generator=generator)

    return tuple(rows(given) for given in model.example_inputs())


def forward_and_gradients(model: nn.Module, run: Callable[..., Any], inputs: Any) -> list[Tensor]:
    outputs = [leaf for leaf in tree_leaves(run(*inputs)) if isinstance(leaf, Tensor)]
    model.zero_grad()
    sum(output.square().mean() for output in outputs).backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [*(output.detach() for output in outputs), *gradients]


def test_the_list_of_models_that_compile_is_whole(case: Cases) -> None:
    found = [
        name for name in MODELS if able(case(TASK_OF[name], name).task.model, CompilesBlocks) is not None
    ]
    assert sorted(found) == sorted(COMPILED)


@every_model
def test_a_whole_model_is_one_graph(model_of: Callable[[str], Any], name: str) -> None:
    model = model_of(name)
    inputs = inputs_of(model)
    if name == "text_to_image":  # its text encoder reads ids outside of the UNet
        inputs, model = (*inputs[:2], torch.randn(2, 77, 8)), model.unet
    whole = torch.compile(model, fullgraph=True, backend="eager")
    expected = forward_and_gradients(model, model, inputs)
    torch.testing.assert_close(forward_and_gradients(model, whole, inputs), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "backend"), [("dim", "aot_eager"), ("matten", "eager"), ("car", "eager")])
def test_blocks_compile_in_place_and_weights_keep_their_names(
    model_of: Callable[[str], Any], name: str, backend: str
) -> None:
    model = model_of(name)
    inputs, names = inputs_of(model), list(model.state_dict())
    expected = forward_and_gradients(model, model, inputs)
    compile_blocks(model, backend=backend)
    found = forward_and_gradients(model, model, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert list(model.state_dict()) == names


def counting_backend() -> tuple[list[int], Callable[..., Any]]:
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        calls.append(len(graph.graph.nodes))
        return graph.forward

    return calls, backend


def test_equal_blocks_share_their_graph(model_of: Callable[[str], Any]) -> None:
    model = model_of("dit")
    calls, backend = counting_backend()
    compile_blocks(model, backend=backend)
    with torch.no_grad():
        model(*inputs_of(model))
    assert (len(model.blocks), len(calls)) == (2, 1)


def test_blocks_of_several_kinds_stay_far_below_the_limit(model_of: Callable[[str], Any]) -> None:
    model = model_of("matten")
    calls, backend = counting_backend()
    compile_blocks(model, backend=backend)
    model(*inputs_of(model))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(*inputs_of(model))
    assert 0 < len(calls) <= 8 < compiling.RECOMPILE_LIMIT


def test_scales_with_a_cache_are_predicted_by_few_graphs(model_of: Callable[[str], Any]) -> None:
    model = model_of("var").eval()
    labels = torch.tensor([0, 1])
    width = model.word_embed.in_features
    generator = torch.Generator().manual_seed(2)
    maps = [None, *(torch.randn(2, width, *size, generator=generator) for size in model.sizes[1:])]

    def predicted() -> list[Tensor]:
        predict = decoder_of(model, labels)
        with torch.no_grad():
            return [predict(scale, read) for scale, read in enumerate(maps)]

    expected = predicted()
    calls, backend = counting_backend()
    with compiled(model, backend=backend):
        torch.testing.assert_close(predicted(), expected, rtol=1e-5, atol=1e-6)
        first = len(calls)
        predicted()
    assert len(maps) == 4
    assert 0 < first == len(calls) <= 4


def test_a_model_is_compiled_for_a_while_and_left_as_it_was(model_of: Callable[[str], Any]) -> None:
    model = model_of("dit")
    calls, backend = counting_backend()
    with compiled(model, backend=backend):
        assert is_compiled(model)
        with compiled(model):  # by another backend, and only where nothing compiled it
            model(*inputs_of(model))
        assert is_compiled(model)
        seen = len(calls)
        with eagerly(model):
            model(*inputs_of(model, 5))
    assert not is_compiled(model)
    model(*inputs_of(model, 7))
    assert seen == len(calls) == 1


def test_copies_are_compiled_as_their_original(model_of: Callable[[str], Any]) -> None:
    model = model_of("var")
    calls, backend = counting_backend()
    plain = copy.deepcopy(model)
    compile_like(plain, model)
    assert not is_compiled(plain)
    compile_blocks(model, backend=backend)
    copied = copy.deepcopy(model)
    compile_like(copied, model)
    copied(*inputs_of(model))
    assert is_compiled(copied)
    assert calls


def test_a_model_without_blocks_is_refused(case: Cases) -> None:
    with pytest.raises(UsageError, match="compile: VQVAE names no blocks to compile"):
        compile_blocks(case(TASK_OF["vqvae"], "vqvae").task.model)


def test_nothing_runs_uncompiled_without_a_compiler(
    model_of: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_no_cxx", lambda: "No working C++ compiler found")
    model = model_of("dit")
    with pytest.raises(
        MissingDependencyError, match=r"(?s)nothing can be compiled for cpu.*No working C\+\+"
    ):
        compile_blocks(model)
    assert not is_compiled(model)
