"""No recipe, however broken, gives anything but a RecipeError."""

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_cases import SHIPPED, TINY

from genzoo.api.recipes.plan import check_recipe
from genzoo.core.errors import RecipeError
from genzoo.core.recipe import load_recipe, recipe_from

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["auto", "???", "dim"]),
)
keys = st.one_of(st.sampled_from([*TINY, *TINY["train"], "name", "base", "loss"]), st.text(max_size=8))
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(data=st.dictionaries(st.sampled_from(list(TINY)), trees, max_size=6))
def test_any_tree_of_sections_is_checked_without_a_crash(data: dict[str, Any]) -> None:
    with contextlib.suppress(RecipeError):
        check_recipe(recipe_from(TINY | data))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.dictionaries(keys, trees, max_size=4), overrides=st.lists(st.text(max_size=20), max_size=2))
def test_any_text_and_overrides_load_or_give_a_recipe_error(
    data: dict[str, Any], overrides: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(repr(data), encoding="utf-8", errors="replace")
    with contextlib.suppress(RecipeError):
        load_recipe(path, overrides)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, removed, doubled or replaced by words that mean something to YAML."""
    words = [
        b"???",
        b"${a}",
        b"*x",
        b"&x ",
        b"!!int ",
        b"{",
        b"]",
        b": ",
        b"- ",
        b"\t",
        b"\x00",
        b"\xff",
        b"1e999",
        b"auto",
    ]
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(content))
        end = min(len(content), start + rng.randint(0, 6))
        content = (
            content[:start] + rng.choice([b"", content[start:end] * 2, rng.choice(words)]) + content[end:]
        )
    return content


@pytest.mark.parametrize("seed", range(4))
def test_mutations_of_shipped_recipes_give_only_recipe_errors(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "mutated.yaml"
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(250):
        path.write_bytes(mutated(rng.choice(SHIPPED).read_bytes(), rng))
        try:
            check_recipe(load_recipe(path))
            outcomes["loaded"] += 1
        except RecipeError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10  # the mutations are neither harmless nor hopeless
