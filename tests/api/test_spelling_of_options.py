"""Options of `evaluate` and `prepare` may be written as KEY=VALUE; values of others go where they went."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from command_cases import all_commands

from genzoo.cli import parser
from genzoo.core.errors import UsageError


def parsed(*words: str) -> dict[str, Any]:
    command, rest = typer.main.get_command(parser()), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command.make_context("genzoo", rest).params


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["evaluate", "X", "num=7"], "num", 7),
        (["evaluate", "X", "guidance_scale=1.5"], "guidance_scale", 1.5),
        (["evaluate", "X", "guidance-scale=1.5"], "guidance_scale", 1.5),
        (["evaluate", "X", "report=true"], "report", True),
        (["evaluate", "X", "report=false"], "report", False),
        (["evaluate", "X", "intervals=false"], "intervals", False),
        (["evaluate", "X", "--num", "7"], "num", 7),
        (["prepare", "latents", "R", "batch_size=3"], "batch_size", 3),
        (["prepare", "controls", "R", "output=edges"], "output", "edges"),
        (["prepare", "regularization", "cat", "output=o", "held_out=2"], "held_out", 2),
    ],
)
def test_an_option_is_the_same_in_either_spelling(words: list[str], name: str, value: object) -> None:
    assert parsed(*words)[name] == value


def test_settings_of_a_recipe_stay_settings() -> None:
    found = parsed("prepare", "latents", "R", "data.root=P", "batch_size=3", "train.steps=5")
    assert found["overrides"] == ["data.root=P", "train.steps=5"]
    assert found["recipe"] == "R"


def test_several_of_one_that_may_be_given_several_times() -> None:
    assert [str(path) for path in parsed("evaluate", "X", "compare=a", "--compare", "b")["compare"]] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    "words",
    [["num=3", "num=4"], ["--num", "3", "num=4"], ["num=4", "--num=3"], ["report=perhaps"]],
    ids=["twice", "option-first", "value-first", "no-flag"],
)
def test_two_values_and_no_values_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"given twice|report is 'perhaps'"):
        parsed("evaluate", "X", *words)


def test_the_value_of_an_option_is_no_option() -> None:
    found = parsed("evaluate", "X", "--sweep", "guidance_scale=1,2", "steps=3")
    assert (found["sweep"], found["guidance_scale"], found["steps"]) == ("guidance_scale=1,2", None, 3)


def test_the_same_said_twice_is_said_once() -> None:
    assert parsed("evaluate", "X", "--num", "3", "num=3", "report=true", "--report")["num"] == 3


def test_a_value_of_the_wrong_type_is_refused_as_that_of_an_option() -> None:
    with pytest.raises(Exception, match="valid integer"):
        parsed("evaluate", "X", "num=many")


def test_where_it_writes_is_called_the_same_in_every_command() -> None:
    spelt = {
        name: set(param.opts)
        for name, command in all_commands()
        for param in command.params
        if param.param_type_name == "option" and param.name in ("out", "output")
    }
    assert {"train", "sample", "evaluate", "sweep", "compare", "plot", "rerun"} <= set(spelt)
    assert [name for name, opts in spelt.items() if not {"--output", "-o"} <= opts] == []
