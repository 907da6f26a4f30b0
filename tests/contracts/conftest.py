"""What the contract tests share: built once, asked often."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from contract_cases import Case, moved
from smallest import Workshop, smallest

from genzoo.api.recipes.build import build_dataset, build_task
from genzoo.api.recipes.plan import plan_of


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("smallest"))


@pytest.fixture(scope="session")
def build(workshop: Workshop) -> Callable[[str, str], Case]:
    """A fresh case of a task and a model; the data set of a recipe is built once."""

    @cache
    def dataset(task: str, model: str) -> Any:
        return build_dataset(plan_of(smallest(task, model, workshop)))

    def build(task: str, model: str) -> Case:
        recipe = smallest(task, model, workshop)
        made = build_task(recipe, dataset(task, model))
        moved(made.model, frozen=True)
        return Case(recipe, made, dataset(task, model))

    return build


@pytest.fixture(scope="session")
def case(build: Callable[[str, str], Case]) -> Callable[[str, str], Case]:
    """A case that is shared: do not change its weights."""
    return cache(build)
