"""What every registered sampler keeps, with the first task that takes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from contract_cases import Case, streams
from smallest import Workshop, pairs, sampler_section
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.registry import SAMPLERS, TASKS

every_sampler = pytest.mark.parametrize("name", list(SAMPLERS))


@pytest.fixture(scope="module")
def sampled(case: Callable[[str, str], Case]) -> Callable[..., Tensor]:
    @cache
    def conditions(task: str, model: str) -> Any:
        return case(task, model).conditions(2)

    def sample(name: str, *positions: int, **options: Any) -> Tensor:
        chosen = SAMPLERS.entry(name)
        task, model = next(
            (task, model)
            for task, model in pairs()
            if TASKS.entry(task).takes.get("sampler") and chosen.fits(TASKS.entry(task).takes["sampler"])
        )
        found, settings = case(task, model), sampler_section(name)
        asked = {"sampler": settings.pop("name"), **settings, **options}
        if len(SAMPLERS.fitting(TASKS.entry(task).takes["sampler"])) == 1:
            asked.pop("sampler")  # there is nothing to choose
        return found.task.sample(found.task.model, conditions(task, model), streams(*positions), **asked)

    return sample


@every_sampler
def test_samples_are_pixels_and_repeatable_bit_for_bit(sampled: Callable[..., Tensor], name: str) -> None:
    first = sampled(name, 0, 1)  # builds what it samples from, which may draw
    before = torch.random.get_rng_state()
    again = sampled(name, 0, 1)
    assert torch.equal(first, again)
    assert torch.isfinite(first).all()
    assert first.abs().max() <= 1
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"


@every_sampler
def test_a_sample_depends_on_its_own_stream_alone(sampled: Callable[..., Tensor], name: str) -> None:
    first, other = sampled(name, 0, 1), sampled(name, 0, 2)
    assert torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


@every_sampler
def test_an_option_that_a_sampler_does_not_have_is_named(sampled: Callable[..., Tensor], name: str) -> None:
    with pytest.raises(UsageError, match="no_such_thing"):
        sampled(name, 0, 1, no_such_thing=1)


def test_the_table_makes_what_it_names(workshop: Workshop) -> None:
    filled = workshop.fill({"root": ["@pictures"], "size": 3})
    assert filled == {"root": [workshop.path("pictures")], "size": 3}
