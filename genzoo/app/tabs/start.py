"""The form that starts a training: a recipe, a name, settings that are checked as one types."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any

import gradio as gr

from genzoo.api.recipes.listing import describe
from genzoo.app.page import PRIVATE, QUIET, Page, a_choice, a_text, complain, note
from genzoo.app.text import plain
from genzoo.core.errors import GenzooError, UsageError

QUICK = "quickstart/"
USUAL = "quickstart/dim_digits"


def start_form(page: Page) -> gr.State:
    """Build the form; the state it returns changes when something was started."""
    started = gr.State(0)
    recipe = gr.Dropdown(recipes(), value=USUAL, label="Recipe", elem_id="start-recipe")
    name = gr.Textbox(
        "", label="Name of the run", placeholder="my-first-run", max_length=100, elem_id="start-name"
    )
    overrides = gr.Textbox(
        "",
        label="Settings",
        info="Replace those of the recipe; leave empty to keep them",
        placeholder="train.steps=200 optim.lr=0.001",
        lines=2,
        max_length=4000,
        elem_id="start-settings",
    )
    said = note("", "start-said", most=12)
    begin = gr.Button("Start training", variant="primary", elem_id="start-begin")
    check = partial(checked, page)
    # leaving the field counts too: what is pasted while the page still loads is not seen as typing
    for change in (recipe.input, overrides.input, overrides.blur):
        change(check, [recipe, overrides], said, **QUIET, trigger_mode="always_last")
    begin.click(partial(start, page), [recipe, name, overrides, started], [name, said, started], **PRIVATE)
    return started


def recipes() -> list[tuple[str, str]]:
    """Recipes that can be named, the quick starts first."""
    found = sorted(describe("recipes"), key=lambda one: (not one[0].startswith(QUICK), one[0]))
    return [(plain(f"{name}: {about}" if about else name, longest=140), name) for name, about in found]


def settings_of(text: Any) -> list[str]:
    """KEY=VALUEs out of one line, quoted as in a shell. Raises UsageError for anything else."""
    try:
        found = shlex.split(a_text(text, "settings", longest=4000))
    except ValueError as error:
        raise UsageError(f"the settings cannot be read: {error}", fix="close the quotation mark") from error
    for one in found:
        if "=" not in one or one.startswith("-"):
            raise UsageError(f"{one[:80]!r} is not of the form key=value", fix="for example train.steps=200")
    return found


def checked(page: Page, recipe: Any, overrides: Any) -> str:
    """What is wrong with a recipe and its settings, in words; or that nothing is."""
    try:
        problems, missing, steps = _validated(page, recipe, overrides)
    except GenzooError as error:
        return plain(error.what, longest=1000)
    if problems:
        return plain("\n".join(problems), longest=2000, lines=True)
    if missing:
        return plain(f"Still to say: {', '.join(f'{key}=…' for key in missing)}")
    return f"Looks right{f': {steps:,} step' + 's' * (steps != 1) if isinstance(steps, int) else ''}."


def start(page: Page, recipe: Any, name: Any, overrides: Any, started: int) -> list[Any]:
    """Start a training, or say why not."""
    try:
        problems, missing, _ = _validated(page, recipe, overrides)
        if problems or missing:
            raise UsageError("the settings are not right yet", fix="the line above the button says why")
        page.jobs.train(a_text(name, "the name", longest=100).strip(), recipe, settings_of(overrides))
    except GenzooError as error:
        complain(error)
        return [gr.skip(), checked(page, recipe, overrides), gr.skip()]
    gr.Info("Started. It goes on when you close this page.")
    return ["", "", started + 1]


def _validated(page: Page, recipe: Any, overrides: Any) -> tuple[list[str], list[str], Any]:
    recipe = a_choice(recipe, dict(describe("recipes")), "recipe")
    found = page.worker.ask("validate", recipe=recipe, overrides=settings_of(overrides))
    return found["problems"], found["missing"], found["steps"]
