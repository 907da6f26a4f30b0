"""Values that nothing can use are found by `validate`."""

from __future__ import annotations

import pytest
from users_cases import Gz


@pytest.mark.parametrize(
    "wrong",
    [
        "optim.lr=-1",
        "optim.lr=.nan",
        "optim.weight_decay=-0.1",
        "sampler.steps=0",
        "preview.steps=0",
        "optim.warmup_steps=-3",
        "preview.num=0",
        "evaluation.num=0",
        "report.0.rows=0",
        "report.1.num=0",
        "report.1.k=-1",
    ],
)
def test_a_number_that_nothing_can_use_is_found_by_validate(gz: Gz, wrong: str) -> None:
    answer = gz("validate", "quickstart/dim_digits", wrong)
    assert answer.code == 2
    assert wrong.partition("=")[0] in answer.text
    assert "must be at least" in answer.text


@pytest.mark.parametrize(
    ("wrong", "way"),
    [("init_from=runs/a", "init_from.path=..."), ("report=[sample_grid]", "write {name: sample_grid}")],
)
def test_a_word_in_the_place_of_settings_says_how_to_write_them(gz: Gz, wrong: str, way: str) -> None:
    answer = gz("validate", "quickstart/dim_digits", wrong)
    assert answer.code == 2
    assert way in answer.text
