"""Recipes whose parts do not fit each other are refused, and told what would fit, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import SHIPPED, TINY

from genzoo.api.recipes.plan import check_recipe
from genzoo.api.recipes.ports import port_problems, require_sampler
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.recipe import load_recipe
from genzoo.core.registry import LOSSES, METRICS, MODELS, SAMPLERS, TASKS

MISFITS: list[tuple[list[str], str, str]] = [
    (["evaluation.every=2", "data.name=moving_digits"], "evaluation", "moving_digits does not fit an eval"),
    (
        ["evaluation.every=2", "task.name=vqvae"],
        "evaluation",
        "vqvae does not fit an evaluation",
    ),
    (["report=[{name: memorisation}]", "task.name=autoencoder"], "report.0.name", "the metric memorisation"),
    (["sampler.name=next_scale"], "sampler.name", "the task latent_diffusion, which takes one of ddim, ddpm"),
    (["model.name=vqvae"], "model.name", "the task latent_diffusion, which takes one of dim, dim_video, dit"),
    (["model.name=matten"], "data.name", "the model matten, which takes one of moving_digits"),
    (["data.name=moving_digits"], "data.name", "the model dim, which takes one of digits, emoji"),
    (
        ["task.name=text_to_image"],
        "data.name",
        "the task text_to_image, which takes one of emoji, hf_folder, image_shards",
    ),
    (["task.name=vqvae"], "sampler", "the task vqvae takes no sampler; leave this section out"),
    (["task.name=next_scale"], "codec", "the task next_scale needs a codec, which takes vqvae"),
    (
        ["report=[{name: moving_object}]"],
        "report.0.name",
        "the metric moving_object, which takes one of moving",
    ),
]


@pytest.mark.parametrize(("changes", "key", "message"), MISFITS, ids=lambda case: str(case)[:40])
def test_a_part_that_does_not_fit_is_named_with_those_that_would(
    changes: list[str], key: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        check_recipe(load_recipe("quickstart/dim_digits_paper", changes))
    assert any(f": {key}: " in line and message in line for line in caught.value.what.splitlines())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_parts_of_shipped_recipes_fit(path: Path) -> None:
    assert not list(port_problems(load_recipe(str(path)).data))


@pytest.fixture
def outsiders() -> Iterator[None]:
    """Names of a package that says nothing about ports, and a loss that says another one."""

    def anything(run: Any) -> dict[str, float]:
        return {}

    for registry in (MODELS, SAMPLERS, TASKS, METRICS):
        registry.register("outsider")(anything)
    LOSSES.register("outsider", port="speech")(anything)
    yield
    for registry in (MODELS, SAMPLERS, TASKS, METRICS, LOSSES):
        registry._entries.pop("outsider")


@pytest.mark.usefixtures("outsiders")
@pytest.mark.parametrize("section", ["model", "sampler", "task"])
def test_an_entry_that_declares_no_port_fits_everywhere(section: str) -> None:
    assert not list(port_problems(TINY | {section: {"name": "outsider"}}))


@pytest.mark.usefixtures("outsiders")
@pytest.mark.parametrize(
    ("loss", "key"),
    [({"name": "outsider"}, "task.loss.name"), ("outsider", "task.loss")],
    ids=["section", "name"],
)
def test_a_loss_is_compared_by_section_and_by_name(loss: object, key: str) -> None:
    problems = list(port_problems(TINY | {"task": {"name": "latent_diffusion", "loss": loss}}))
    assert [problem.key for problem in problems] == [key]
    assert "which takes one of hybrid, kl, noise_mse" in problems[0].message


def test_unknown_names_are_left_to_the_check_of_names() -> None:
    assert not list(port_problems({"task": {"name": "no_task"}, "model": "???", "data": 3, "report": [None]}))


def test_a_sampler_of_another_kind_is_refused_before_sampling() -> None:
    require_sampler(TINY, "euler")
    with pytest.raises(UsageError, match="next_scale does not fit the task latent_diffusion"):
        require_sampler(TINY, "next_scale")


@pytest.mark.parametrize("section", ["preview", "evaluation"])
def test_options_that_the_sampler_does_not_have_are_refused_before_training(section: str) -> None:
    changes = [f"{section}.every=2", f"{section}.steps=4"]
    with pytest.raises(RecipeError, match=f"{section}.steps: the sampler next_scale has no option 'steps'"):
        check_recipe(load_recipe("var_emoji", changes))
    check_recipe(load_recipe("var_emoji", [f"{section}.every=2", f"{section}.guidance_scale=2.0"]))
    check_recipe(load_recipe("quickstart/dim_digits_paper", changes))
