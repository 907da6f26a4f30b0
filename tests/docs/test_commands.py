"""Every command line that a README, a recipe, a docstring or a message shows is one that works.

Each is parsed by the command line itself; recipes are loaded and checked with the overrides shown, and what
follows `genzoo sample` is held against the task and the sampler of that recipe. Words in capitals stand for
what only the reader has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from command_cases import all_commands
from documented_commands import COMMANDS, Shown, commands_in, shown_commands

from genzoo.api.recipes.check import KINDS, check_node
from genzoo.api.recipes.models import model_settings
from genzoo.api.recipes.plan import check_recipe
from genzoo.api.sampling.sample_run import sample_run_to
from genzoo.cli import parser
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import SharesSamplingOptions
from genzoo.core.recipe import load_recipe
from genzoo.core.recipe_source import names_in, shipped
from genzoo.core.registry import SAMPLERS, SOURCES, TASKS
from genzoo.core.signatures import parameters

SHOWN = shown_commands()
READERS_OWN = ("straight_digits", "straight_s", "first_look")  # docs/adding_a_family.md builds them
WITH_RECIPE = ("train", "show", "prepare latents", "prepare controls")


def is_placeholder(word: str) -> bool:
    """PHOTOS, IMAGENET/train, FILE.pt, <run>: what the reader has."""
    return bool(re.match(r"[A-Z][A-Z0-9_]*(/|\.|$)|<", word))


def parsed(shown: Shown) -> tuple[str, dict[str, Any]]:
    """Name and values of a command, as the command line reads it. Raises its UsageError."""
    command: Any = typer.main.get_command(parser())
    words, names = list(shown.words), []
    while hasattr(command, "commands"):
        names.append(words.pop(0))
        command = command.commands[names[-1]]
    if all(word.startswith("-") for word in words):
        return " ".join(names), {}  # the name alone, as prose has it
    numbers = [re.sub(r"^(N|NUM|STEPS|STEP|SEED)$", "3", word) for word in words]
    return " ".join(names), command.make_context(names[-1], numbers).params


def test_lines_of_every_command_are_looked_for() -> None:
    assert {name.split()[0] for name, _ in all_commands()} == set(COMMANDS)


def test_the_texts_show_commands_of_every_kind() -> None:
    assert len(SHOWN) > 60
    assert {"train", "sample", "evaluate", "export", "prepare", "convert"} <= {one.words[0] for one in SHOWN}


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_a_shown_command_works(shown: Shown) -> None:
    name, values = parsed(shown)
    overrides = [text for text in values.get("overrides") or [] if "=" in text]
    if name in WITH_RECIPE and values:
        check_shown_recipe(values.get("recipe") or values["source"], overrides, values.get("control"))
    elif name == "validate":
        for recipe in [text for text in values.get("recipes", []) if "=" not in text]:
            check_shown_recipe(recipe, [])
    elif name == "sample" and values:
        keys = {text.partition("=")[0] for text in values["options"] or []}
        assert keys <= sampling_options(values["run"]) | OPENERS, keys
    elif name == "count" and values:
        check_shown_model(values["model"], overrides)


def check_shown_recipe(recipe: str, overrides: list[str], control: str | None = None) -> None:
    if control is not None or is_placeholder(recipe) or recipe in READERS_OWN:
        return
    # what the reader has is a place, whatever it is called
    check_recipe(load_recipe(recipe, [text if not _waits(text) else text.lower() for text in overrides]))


def _waits(override: str) -> bool:
    return is_placeholder(override.partition("=")[2])


def check_shown_model(model: str, overrides: list[str]) -> None:
    if not is_placeholder(model) and model not in READERS_OWN:
        settings, _ = model_settings(model, dict.fromkeys(text.partition("=")[0] for text in overrides))
        unknown = [p for p in check_node("model", settings, KINDS["model"]) if "no argument" in p.message]
        assert not unknown, unknown


def sampling_options(run: str) -> set[str]:
    """Keys that may follow `genzoo sample RUN`: of its task and sampler, of any where RUN is nobody's."""
    own = set(parameters(sample_run_to)) - {"run", "folder", "world", "progress"}
    own |= {
        "sampler",
        "out",
        "ema",
    }  # of another sampler, of the command, of a run with profiles of its average
    recipe = recipe_of(run)
    if recipe is None:
        return own.union(*(options_of(task, sampler) for task in TASKS for sampler in SAMPLERS))
    data = load_recipe(recipe).data
    return own | options_of(data["task"]["name"], (data.get("sampler") or {}).get("name"))


def recipe_of(run: str) -> str | None:
    """The shipped recipe that leaves such a run; None for runs of the reader's own."""
    name = run.removeprefix("runs/").rstrip("/")
    if is_placeholder(run) or name in READERS_OWN or not run.startswith("runs/"):
        return None
    root = shipped("recipes")
    assert root is not None
    (found,) = [recipe for recipe in names_in(root) if recipe.rpartition("/")[2] == name]
    return found


def options_of(task: str, sampler: str | None) -> set[str]:
    factory = TASKS.get(task)
    sharing = able(factory, SharesSamplingOptions)
    sources = [*(sharing.sampling_options if sharing else ())]
    found = {name for source in sources for name in parameters(source)} | set(parameters(factory.conditions))
    return found | (set() if sampler is None else set(parameters(SAMPLERS.get(sampler), keyword_only=True)))


OPENERS = {name for source in SOURCES for name in parameters(SOURCES.get(source), keyword_only=True)}


@pytest.mark.parametrize(
    "line",
    [
        "`genzoo train quickstart/dim_digits optim.lrr=1`",
        "genzoo train no_such_recipe",
        "genzoo train quickstart/dim_digits --outptu X",
        "# genzoo sample runs/dim_digits --num many",
        "genzoo sample runs/dim_digits wobble=3",
        "genzoo count dim_s4 wobble=3",
    ],
)
def test_a_wrong_line_would_be_found(line: str) -> None:
    (shown,) = commands_in(line, "here")
    with pytest.raises(Exception, match=r"lrr|no_such|outptu|valid integer|wobble"):
        test_a_shown_command_works(shown)


def test_lines_are_found_wherever_they_stand() -> None:
    text = "#   genzoo train a b=1 \\\n#     c=2   # why\nSo `genzoo list` and genzoo is prose.\n"
    text += "genzoo show x && genzoo train y | tee\n"

    def found() -> Iterator[list[str]]:
        yield from (one.words for one in commands_in(text, "here"))

    assert list(found()) == [["train", "a", "b=1", "c=2"], ["list"], ["show", "x"], ["train", "y"]]
