"""What every registered metric keeps, on the smallest run that it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from smallest import DATA_OF, Workshop, data_for, pairs, smallest

import genzoo
from genzoo.core.registry import DATASETS, METRICS, MODELS, TASKS

OPTIONS: dict[str, dict[str, Any]] = {
    "nearest_neighbour": {"num": 20},
    "sample_grid": {"rows": 2, "columns": 3},
    "moving_object": {"num": 10, "reference": 20, "window": 4},
    "moving_direction": {"num": 10, "reference": 20},
    "memorisation": {"num": 4},
    "reconstruction": {"num": 2},
    "control_edges": {"num": 2, "classes": "all", "shown": 2},
    "control_consistency": {"num": 2, "classes": "all"},
}
ELSEWHERE = {
    "hed_embedding": "needs the weights of HED: tests/evaluation/test_hed_embedding.py",
    "concept_study": "teaches a second concept: tests/families/custom_diffusion/test_concept_study.py",
}
every_metric = pytest.mark.parametrize("name", [name for name in METRICS if name not in ELSEWHERE])


def pair_for(name: str) -> tuple[str, str]:
    """The first task and model that a metric takes; a plain diffusion first, which samples on its own."""
    takes = METRICS.entry(name).takes
    for task, model in [("latent_diffusion", "dit"), *pairs()]:
        data = DATA_OF.get(task) or data_for(TASKS.entry(task), MODELS.entry(model))
        fits = {"model": MODELS.entry(model), "data": DATASETS.entry(data), "task": TASKS.entry(task)}
        if all(fits[section].fits(ports) for section, ports in takes.items()):
            return task, model
    raise AssertionError(f"no smallest recipe fits the metric {name}")


@pytest.fixture(scope="module")
def run_for(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    @cache
    def trained(task: str, model: str) -> Any:
        folder: Path = tmp_path_factory.mktemp("run") / f"{task}-{model}"
        return genzoo.train(smallest(task, model, workshop), output=folder)

    return lambda name: trained(*pair_for(name))


@every_metric
def test_a_metric_gives_finite_numbers_or_text_and_the_same_again(
    run_for: Callable[[str], Any], name: str
) -> None:
    run, metric = run_for(name), METRICS.get(name)
    before = torch.random.get_rng_state()
    first, again = (dict(metric(run, **OPTIONS.get(name, {}))) for _ in range(2))
    assert first
    assert json.loads(json.dumps(first)) == again
    numbers = [value for value in first.values() if not isinstance(value, str)]
    assert all(math.isfinite(value) for value in numbers)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"


@every_metric
def test_a_metric_leaves_the_model_as_it_was(run_for: Callable[[str], Any], name: str) -> None:
    run = run_for(name)
    model = run.task().model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    METRICS.get(name)(run, **OPTIONS.get(name, {}))
    assert all(torch.equal(value, before[key]) for key, value in run.task().model.state_dict().items())
    assert not model.training
