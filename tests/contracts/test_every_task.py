"""What every registered task keeps, with every model that it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from contract_cases import Case, moved, streams
from smallest import pairs
from torch import Tensor, nn

from genzoo.core.contracts.tasks import recorded_facts
from genzoo.core.errors import UsageError
from genzoo.core.registry import TASKS

PAIRS = list(pairs())
Cases = Callable[[str, str], Case]
every_pair = pytest.mark.parametrize(("task", "model"), PAIRS, ids=["-".join(pair) for pair in PAIRS])


class Prepared(nn.Module):
    """A model behind a wrapper that forwards calls and nothing else, as distributed training wraps it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.module(*inputs, **options)


def loss_of(case: Case, model: nn.Module | None = None) -> Any:
    torch.manual_seed(0)  # dropout
    return case.task.loss(case.task.model if model is None else model, case.batch(0, 1), streams(0, 1))


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_every_task_has_a_model() -> None:
    assert {task for task, _ in PAIRS} == {*TASKS}


@every_pair
def test_gradients_of_a_finite_loss_reach_all_that_trains(build: Cases, task: str, model: str) -> None:
    case = build(task, model)
    output = loss_of(case)
    assert output.loss.shape == ()
    assert torch.isfinite(output.loss)
    assert all(not value.requires_grad for value in output.metrics.values())
    output.loss.backward()
    found = gradients(case.task.model)
    assert found
    unreached = [name for name, grad in found.items() if grad is None or not grad.any()]
    assert not unreached
    assert all(torch.isfinite(grad).all() for grad in found.values() if grad is not None)


@every_pair
def test_a_loss_and_its_gradients_are_repeatable_bit_for_bit(build: Cases, task: str, model: str) -> None:
    results = []
    for _ in range(2):
        case = build(task, model)
        output = loss_of(case)
        output.loss.backward()
        results.append((output.loss, gradients(case.task.model)))
    (first, first_gradients), (second, second_gradients) = results
    assert torch.equal(first, second)
    for name, grad in first_gradients.items():
        assert torch.equal(grad, second_gradients[name]), name  # type: ignore[arg-type]


@every_pair
def test_the_loss_is_that_of_the_model_it_is_given(build: Cases, task: str, model: str) -> None:
    case = build(task, model)
    other = moved(copy.deepcopy(case.task.model), seed=1)
    given = loss_of(case, Prepared(other)).loss
    assert not torch.equal(given, loss_of(case).loss)
    given.backward()
    assert all(grad is not None for grad in gradients(other).values())
    assert all(grad is None for grad in gradients(case.task.model).values())


@every_pair
def test_samples_have_the_shape_and_range_of_pixels(case: Cases, task: str, model: str) -> None:
    found = case(task, model)
    samples = found.task.sample(found.task.model, found.conditions(2), streams(0, 1))
    assert samples.shape == (2, *found.dataset.sample_shape)
    assert samples.dtype == torch.float32
    assert samples.abs().max() <= 1


@every_pair
def test_samples_are_those_of_the_model_they_are_given(case: Cases, task: str, model: str) -> None:
    found = case(task, model)
    conditions = found.conditions(2)
    other = moved(copy.deepcopy(found.task.model), seed=1, scale=0.5)
    own = found.task.sample(found.task.model, conditions, streams(0, 1))
    assert not torch.equal(found.task.sample(other, conditions, streams(0, 1)), own)


@every_pair
def test_a_prepared_sample_depends_on_its_own_data_and_stream(case: Cases, task: str, model: str) -> None:
    found = case(task, model)
    first, second = found.batch(0, 1), found.batch(0, 2)
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, Tensor):
            assert not value.requires_grad
            assert torch.equal(value[0], second[name][0]), name


@every_pair
def test_an_unknown_option_is_refused_by_its_name(case: Cases, task: str, model: str) -> None:
    found = case(task, model)
    with pytest.raises(UsageError, match="no_such_thing"):
        found.task.conditions(2, no_such_thing=1)
    with pytest.raises(UsageError, match="no_such_thing"):
        found.task.sample(found.task.model, found.conditions(2), streams(0, 1), no_such_thing=1)


@every_pair
def test_what_checkpoints_record_is_text(case: Cases, task: str, model: str) -> None:
    facts = recorded_facts(case(task, model).task)
    assert isinstance(facts, Mapping)
    assert all(isinstance(text, str) for item in facts.items() for text in item)
