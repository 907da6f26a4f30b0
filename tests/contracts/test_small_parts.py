"""What registered losses, optimizers, schedules, converters and feature networks keep."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from contract_cases import streams
from smallest import Workshop, arguments, pairs, smallest
from torch import nn

from genzoo.api.recipes.build import build_dataset, build_task
from genzoo.api.recipes.listing import list_recipes
from genzoo.api.recipes.plan import plan_of
from genzoo.core.errors import GenzooError
from genzoo.core.registry import CONVERTERS, LOSSES, MODELS, OPTIMIZERS, SCHEDULES, TASKS
from genzoo.data.sample_stream import SampleStream
from genzoo.training.optim import build_optimizer


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_trains_the_first_task_and_model_that_take_it(workshop: Workshop, name: str) -> None:
    task, model = next(
        (task, model)
        for task, model in pairs()
        if LOSSES.entry(name).fits(TASKS.entry(task).takes.get("loss", ()))
    )
    recipe = smallest(task, model, workshop).replaced({"task.loss": {"name": name}}, "test")
    for learn_sigma in (False, True):  # some need a variance, some refuse one
        chosen = recipe
        if "learn_sigma" in arguments(MODELS, model):
            chosen = recipe.replaced({"model.learn_sigma": learn_sigma}, "test")
        try:
            loss = trained_once(chosen)
        except GenzooError:
            continue
        assert math.isfinite(loss)
        return
    raise AssertionError(f"{name} takes a model neither with a variance nor without")


def trained_once(recipe: Any) -> float:
    dataset = build_dataset(plan_of(recipe))
    task: Any = build_task(recipe, dataset)
    found, _ = SampleStream(dataset, seed=0).fetch_batch([0, 1])
    loss = task.loss(task.model, task.prepare_batch(found, streams(0, 1)), streams(0, 1)).loss
    loss.backward()
    assert any(p.grad is not None for p in task.model.parameters())
    return float(loss)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_an_optimizer_lowers_a_quadratic_and_is_built_from_its_defaults(name: str) -> None:
    point = nn.Parameter(torch.tensor([3.0, -2.0]))
    matrix = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, -1.0]]))
    built = build_optimizer({"point": point, "blocks.0.fc1.weight": matrix}, {"name": name, "lr": 0.05})
    first = [float(parameter.detach().square().sum()) for parameter in (point, matrix)]
    for _ in range(5):
        built.optimizer.zero_grad()
        (point.square().sum() + matrix.square().sum()).backward()
        built.optimizer.step()
    assert float(point.detach().square().sum()) < first[0]
    assert float(matrix.detach().square().sum()) < first[1]


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_schedule_grows_noisier_and_stays_a_variance(name: str) -> None:
    betas = torch.as_tensor(SCHEDULES.get(name)(50))
    assert betas.shape == (50,)
    assert betas.dtype == torch.float64
    assert ((betas > 0) & (betas < 1)).all()
    assert (betas.diff() >= 0).all()


@pytest.mark.parametrize("name", list(CONVERTERS))
def test_a_converter_names_a_recipe_and_knows_only_its_own_layout(name: str) -> None:
    converter = CONVERTERS.get(name)()
    assert converter.recipe in list_recipes()
    assert not converter.detect({})
    assert not converter.detect({"weight": torch.zeros(2)})
