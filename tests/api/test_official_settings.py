"""Recipes of released models say what the code that trained them does."""

from __future__ import annotations

from typing import Any

import pytest

from genzoo.api.recipes.listing import list_recipes
from genzoo.api.recipes.plan import check_recipe
from genzoo.core.recipe import load_recipe
from genzoo.core.recipe_tree import flatten

# clipped at 0.1 after start_clip_iter steps in Latte's configs
LATTE = {"ucf101": 100_000, "ucf101_img": 100_000, "ffs": 20_000, "sky": 20_000, "taichi": 500_000}
THREE = {"sampler.cfg_channels": 3}
VAR = {"train.clip_grad_norm": 2.0, "train.ema_decay": None}
# Table 2 compares 100K, 200K, 300K and 400K steps of one training
STEPS = {"train.keep_every": 100_000, "train.ema_decay": 0.9999}
PATTERNS: list[tuple[str, dict[str, Any]]] = [
    *((f"latte_xl_{k}", {"train.clip_grad_norm": 0.1, "train.clip_after": at}) for k, at in LATTE.items()),
    ("dit_*_imagenet*", THREE),
    ("sit_*_imagenet*", THREE),
    ("var_d*_imagenet*", VAR),
    ("di[mt]_*_imagenet*", STEPS),
]
OFFICIAL = [(name, expected) for pattern, expected in PATTERNS for name in list_recipes(pattern)]


@pytest.mark.parametrize(("name", "expected"), OFFICIAL, ids=str)
def test_a_recipe_says_what_the_released_code_does(name: str, expected: dict[str, Any]) -> None:
    recipe = load_recipe(name)
    check_recipe(recipe)
    said = dict(flatten(recipe.data))
    assert {key: said.get(key) for key in expected} == expected


def test_every_pattern_names_recipes() -> None:
    assert all(list_recipes(pattern) for pattern, _ in PATTERNS)
