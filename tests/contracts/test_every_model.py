"""What every registered model keeps, in the first task that takes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from contract_cases import Case, streams
from smallest import pairs

from genzoo.core.contracts import able
from genzoo.core.contracts.models import GivesExample, fixed_tables, remembered_arguments
from genzoo.core.errors import UsageError
from genzoo.core.registry import MODELS
from genzoo.nn.count import count_model

TASK_OF = {model: task for task, model in reversed(list(pairs()))}
Cases = Callable[[str, str], Case]
every_model = pytest.mark.parametrize("name", list(MODELS))


def test_every_model_has_a_task() -> None:
    assert {*TASK_OF} == {*MODELS}


@every_model
def test_a_model_that_says_what_it_takes_is_counted(case: Cases, name: str) -> None:
    model = case(TASK_OF[name], name).task.model
    if able(model, GivesExample) is None:
        with pytest.raises(UsageError, match=r"it has no method example_inputs\(\)"):
            count_model(model)
        return
    counted = count_model(model)
    assert counted["num_params"] == sum(p.numel() for p in model.parameters())
    assert counted["macs"] > 0
    assert counted["macs"] == sum(value for key, value in counted.items() if key.startswith("macs_"))


@every_model
def test_fixed_tables_are_parameters_that_do_not_train(case: Cases, name: str) -> None:
    model = case(TASK_OF[name], name).task.model
    assert all(not model.get_parameter(table).requires_grad for table in fixed_tables(model))


@every_model
def test_the_arguments_that_a_model_remembers_build_it_again(case: Cases, name: str) -> None:
    model = case(TASK_OF[name], name).task.model
    arguments = remembered_arguments(model)
    if arguments:
        again = type(model)(**arguments)
        assert {k: v.shape for k, v in again.state_dict().items()} == {
            k: v.shape for k, v in model.state_dict().items()
        }


@every_model
def test_all_that_matters_is_in_the_weights(build: Cases, name: str) -> None:
    first, second = (build(TASK_OF[name], name) for _ in range(2))
    with torch.no_grad():
        for parameter in second.task.model.parameters():
            parameter.add_(0.3) if parameter.requires_grad else parameter
    frozen = {key for key, p in first.task.model.named_parameters() if not p.requires_grad}
    weights = {k: v for k, v in first.task.model.state_dict().items() if k not in frozen}
    second.task.model.load_state_dict(weights, strict=False)
    losses = []
    for case in (first, second):
        torch.manual_seed(0)
        losses.append(case.task.loss(case.task.model, case.batch(0, 1), streams(0, 1)).loss)
    assert torch.equal(*losses)


@every_model
def test_sixteen_bit_arithmetic_gives_about_the_same_loss(case: Cases, name: str) -> None:
    found = case(TASK_OF[name], name)
    batch = found.batch(0, 1)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
            losses.append(float(found.task.loss(found.task.model, batch, streams(0, 1)).loss))
    # eight bits of mantissa, a few layers deep
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[0] != losses[1]
