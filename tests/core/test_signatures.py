"""Settings checked against signatures: names, types, and everything at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from genzoo.core.signatures import (
    check_settings,
    describe,
    parameters,
    plain_problem,
    takes_anything,
    type_problem,
)


class Net:
    def __init__(
        self,
        depth: int,
        *,
        width: int = 8,
        scale: float = 1.0,
        kind: Literal["a", "b"] = "a",
        rank: int | str = "auto",
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    every: int
    folder: "Path | None" = None


def sampler(denoise: Any, x_T: Any, *, steps: "int" = 3, eta: float = 0.0) -> None: ...


def open_ended(a: int, **rest: Any) -> None: ...


def hidden_types(a: "NotImported", b: "int" = 3) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def test_parameters_of_classes_functions_and_dataclasses() -> None:
    assert list(parameters(Net)) == ["depth", "width", "scale", "kind", "rank"]
    assert parameters(Net)["depth"].required
    assert not parameters(Net)["width"].required
    assert list(parameters(sampler, keyword_only=True)) == ["steps", "eta"]
    assert parameters(sampler)["steps"].annotation is int
    assert parameters(Settings)["folder"].annotation == Path | None
    assert takes_anything(open_ended)
    assert not takes_anything(Net)


def test_annotations_for_type_checkers_only_do_not_disturb_the_others() -> None:
    found = parameters(hidden_types)
    assert found["a"].annotation is Any
    assert found["b"].annotation is int


def test_all_problems_are_reported_together() -> None:
    settings = {"dept": 2, "width": "8", "scale": True, "kind": "c", "rank": 1.5}
    problems = check_settings(settings, parameters(Net), key="model", owner="Net")
    assert {p.key for p in problems} == {
        "model.dept", "model.width", "model.scale", "model.kind", "model.rank", "model.depth",
    }  # fmt: skip
    assert any("did you mean 'depth'" in p.message for p in problems)
    assert any("one of 'a', 'b'" in p.message for p in problems)


def test_supplied_names_are_unknown_and_auto_is_for_those_that_may() -> None:
    allowed = parameters(Net)
    assert check_settings({"depth": 1, "width": 2}, allowed, key="m", owner="Net", supplied=("width",))
    assert not check_settings({"depth": "auto"}, allowed, key="m", owner="Net", auto=("depth",))
    assert check_settings({"depth": "auto"}, allowed, key="m", owner="Net")
    assert not check_settings({"depth": "???"}, allowed, key="m", owner="Net")


def test_open_ended_factories_take_unknown_names() -> None:
    assert not check_settings({"a": 1, "b": 2}, parameters(open_ended), key="m", owner="f", open_ended=True)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (3, int), (3, float), (3.5, float), ("x", str), (True, bool), (None, int | None),
        ([1, 2], Sequence[int]), ([0.9, 0.99], tuple[float, float]), ([], list[int]),
        ({"a": 1}, Mapping[str, int]), ("a", Literal["a", 3]),
        ("x", Path), (object(), Any), ([1, "a"], list), ("anything", "Tensor"),
    ],
)  # fmt: skip
def test_values_that_fit(value: object, annotation: Any) -> None:
    assert type_problem(value, annotation) is None


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("3", int), (3.5, int), (True, int), (True, float), (float("nan"), float), (float("inf"), float),
        ("1e-4", float), (3, str), (False, str), (1, bool), (None, int), ("ab", Sequence[str]),
        ([1, "b"], Sequence[int]), ([0.9], tuple[float, float]), ({"a": "b"}, Mapping[str, int]),
        (4, Literal["a", 3]), (True, Literal[1]),
        ([1], int | None), ({}, list[int]),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(value: object, annotation: Any) -> None:
    problem = type_problem(value, annotation)
    assert problem is not None
    assert describe(annotation) in problem


def test_text_does_not_fit_a_number_or_a_tensor_and_a_tensor_does() -> None:
    kinds = int | Sequence[int] | torch.Tensor | None
    for value in (3, [1, 2], torch.zeros(2), None, [torch.zeros(1)]):
        assert plain_problem(value, kinds) is None
    for value in ("cat", 2.5, True, [0.7, 2.9], {"a": 1}):
        assert "must be a whole number or" in (plain_problem(value, kinds) or "")
    assert plain_problem("photo.png", str | Path | torch.Tensor) is None
    assert plain_problem(3, torch.Tensor) is None  # what reads it decides
