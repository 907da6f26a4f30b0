"""What is told of a number that is not finite, when every part of it is."""

from __future__ import annotations

import math

import pytest

from genzoo.training.diagnosis import Finding, non_finite_error


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([None], "the norm of all gradients together is not finite"),
        ([None, None], "a sum over processes is not finite"),
        ([None, Finding(3, "the gradient of 'a', though not the loss,", "7")], "the gradient of 'a'"),
    ],
    ids=["alone", "processes", "found"],
)
def test_a_sum_of_finite_parts_is_told_as_what_it_is(found: list[Finding | None], words: str) -> None:
    error = non_finite_error(found, step=3, loss=0.5, grad_norm=math.inf)
    assert words in error.what
    assert "loss 0.5, gradient norm inf" in str(error)
