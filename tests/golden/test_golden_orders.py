"""Orders that every process must agree on: of names, and of the samples of a step."""

from __future__ import annotations

import random
from typing import Any

import pytest
from golden.many_processes_sets import layouts

from genzoo.data.natural_order import natural, naturally_sorted
from genzoo.data.sample_stream import step_positions


def test_names_are_in_natural_order() -> None:
    assert naturally_sorted(layouts("natural_order")["given"]) == layouts("natural_order")["sorted"]


@pytest.mark.parametrize("seed", range(20))
def test_the_cheap_order_is_the_order_of_natural(seed: int) -> None:
    chance = random.Random(seed)
    letters = "aAbB019 -._\u00fc\u00df" if seed % 2 else "a10"
    names = list({"".join(chance.choices(letters, k=chance.randint(1, 7))) for _ in range(60)})
    assert naturally_sorted(names) == sorted(names, key=natural)


def test_names_of_random_digits_and_letters_are_in_the_same_order() -> None:
    chance = random.Random(0)
    names = ["".join(chance.choices("0123456789abcdef", k=12)) + ".JPEG" for _ in range(300)]
    assert naturally_sorted(names) == sorted(names, key=natural)
    # what follows three texts and numbers decides here, and a name that ends before it
    tied = ["a1b2c3d10", "a1b2c3d9", "a1b2c3", "a1b2", "a1b2c", "A1b2c3d9", "a01b2c3d9"]
    assert naturally_sorted(tied) == sorted(tied, key=natural)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["one.png"],
        ["img_2.png", "img_10.png", "img_1.png", "img_01.png"],
        ["0012.jpg", "12.jpg", "3.jpg"],
        ["n01_9.JPEG", "n01_10026.JPEG", "n01_x.JPEG"],
        ["a1.png", "a1.jpg", "a2.png"],
        ["7", "07", "70"],
        ["1a1.png", "1a10.png", "1a2.png"],
        ["x\u0661.png", "x2.png"],
    ],
    ids=str,
)
def test_names_that_differ_in_one_number_are_in_the_same_order(names: list[str]) -> None:
    assert naturally_sorted(names) == sorted(names, key=natural)


@pytest.mark.parametrize("case", layouts("step_positions"), ids=lambda case: str(case)[:40])
def test_positions_of_a_step_are_those_of_the_table(case: dict[str, Any]) -> None:
    cut = {key: case[key] for key in ("batch_size", "per_device", "world")}
    for rank, expected in enumerate(case["positions_by_rank"]):
        found = step_positions(case["step"], rank=rank, **cut)
        assert [list(positions) for positions in found] == expected
