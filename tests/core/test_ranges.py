"""Numbers that make no sense are refused by name, in recipes and in options alike."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from genzoo.api.recipes.models import create_model
from genzoo.api.recipes.plan import check_recipe
from genzoo.api.sampling.options import refuse_misfits
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.ranges import RANGES, SHAPES, range_problem
from genzoo.core.recipe import load_recipe
from genzoo.core.registry import CODECS, DATASETS, LOSSES, MODELS, OPTIMIZERS, SAMPLERS, TASKS
from genzoo.core.signatures import parameters
from genzoo.core.sizes import sides

FACTORIES = [
    (registry, name)
    for registry in (MODELS, TASKS, DATASETS, CODECS, OPTIMIZERS, SAMPLERS, LOSSES)
    for name in registry
]


@pytest.mark.parametrize(("registry", "name"), FACTORIES, ids=lambda value: getattr(value, "kind", value))
def test_every_default_lies_in_its_range(registry: Any, name: str) -> None:
    for option, parameter in inspect.signature(registry.get(name)).parameters.items():
        if parameter.default is not parameter.empty:
            assert range_problem(option, parameter.default) is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optim.lr=-1", "optim.lr: must be at least 0, not -1"),
        ("optim.betas=[0.9, 1]", "optim.betas: must be at least 0 and below 1"),
        ("optim.warmup_steps=-3", "optim.warmup_steps: must be at least 0"),
        ("sampler.steps=0", "sampler.steps: must be at least 1, not 0"),
        ("sampler.block_size=0", "sampler.block_size: must be at least 1"),
        ("model.depth=0", "model.depth: must be at least 1"),
        ("model.patch_size=-2", "model.patch_size: must be at least 1"),
        ("data.image_size=0", "data.image_size: must be at least 1"),
        ("task.label_dropout=1", "task.label_dropout: must be at least 0 and below 1, not 1"),
        ("train.steps=0", "train.steps: must be at least 1"),
    ],
)
def test_validate_names_the_range(setting: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_recipe(load_recipe("quickstart/dim_digits", [setting]))
    assert said in str(caught.value)


def test_options_of_sampling_and_arguments_of_models_too() -> None:
    known = parameters(SAMPLERS.get("ddim"), keyword_only=True)
    with pytest.raises(UsageError, match="steps must be at least 1, not 0"):
        refuse_misfits({"steps": 0}, known)
    with pytest.raises(UsageError, match=r"eta must be at least 0, not -0\.5"):
        refuse_misfits({"eta": -0.5}, known)
    refuse_misfits({"steps": "ddim50", "eta": 0.0}, known)  # a respacing is text
    with pytest.raises(RecipeError, match=r"model\.depth: must be at least 1"):
        create_model("dit_s8", depth=0)


@pytest.mark.parametrize("value", ["auto", None, True, [], ["a"], {"a": 1}])
def test_what_is_no_number_is_left_to_the_types(value: Any) -> None:
    assert all(range_problem(name, value) is None for name in {*RANGES} - {*SHAPES})
    assert isinstance(value, list) or all(range_problem(name, value) is None for name in SHAPES)


ONE = "must be one number, or height and width, 1 or more, not [16]; write 16"
THREE = "must be one number, or height and width, 1 or more, not [8, 8, 8]; write [HEIGHT, WIDTH]"


@pytest.mark.parametrize(
    ("recipe", "setting", "said"),
    [
        ("dim_b4_imagenet", "data.image_size=[16]", ONE),
        ("dim_b4_imagenet", "data.image_size=[]", "not []; write [HEIGHT, WIDTH]"),
        ("matten_xl_ffs", "data.image_size=[8, 8, 8]", THREE),
        ("dim_b4_imagenet", "data.image_size=[16, 0]", "must be at least 1, not [16, 0]"),
        ("quickstart/dim_digits", "model.input_size=[16]", ONE),
        ("quickstart/dim_digits_paper", "task.latent_shape=[8]", "must be [channels, height, width]"),
        ("var_emoji", "model.patch_nums=[1, [2]]", "has [2]; a scale is a side, or height and width"),
        ("var_emoji", "model.patch_nums=[0, 1]", "has 0; a scale is a side"),
        ("var_emoji", "model.patch_nums=[4, 2]", "scales go from coarse to fine"),
        ("var_emoji", "model.patch_nums=[]", "is empty; give at least one scale"),
    ],
)
def test_validate_knows_what_is_no_size(recipe: str, setting: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_recipe(load_recipe(recipe, [setting]))
    assert said in str(caught.value)


def test_sizes_are_sizes() -> None:
    assert (sides(5), sides([5, 7]), sides((7, 5))) == ((5, 5), (5, 7), (7, 5))
    for name, value in {
        "image_size": [5, 7],
        "latent_shape": [2, 3, 5, 7],
        "patch_nums": [1, [2, 3], 4],
    }.items():
        assert range_problem(name, value) is None


@pytest.mark.parametrize("name", sorted(RANGES))
def test_every_range_is_written_in_words(name: str) -> None:
    said = range_problem(name, -1)
    assert said is not None
    assert said.startswith("must be ")
    assert said.endswith("not -1")
