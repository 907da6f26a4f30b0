"""What several commands take: how an argument or option is declared, and how its text is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from genzoo.api.commands import completion
from genzoo.assets.shipped import is_shipped, shipped_folder
from genzoo.core.errors import UsageError
from genzoo.core.limits import MAX_WORKERS
from genzoo.core.paths import exists, require_path

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="path of a recipe, or the name of a shipped one",
        autocompletion=completion.recipes,
    ),
]
RecipeOrRun = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|RUN",
        help="path of a recipe, the name of a shipped one, or a run, whose recipe is meant",
        autocompletion=completion.recipes,
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings that replace the recipe's")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="folder of a run", autocompletion=completion.runs)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace a file that is there already")]
Device = Annotated[str | None, typer.Option(help="such as cpu or cuda:1")]
AtOnce = Annotated[int, typer.Option("--batch-size", min=1)]
Workers = Annotated[
    int, typer.Option("--num-workers", min=0, max=MAX_WORKERS, help="processes that decode pictures")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Prune = Annotated[bool, typer.Option("--prune", help="remove entries that are not used any more")]

# options of sampling that hold for all samples, though they are lists
SHARED_LISTS = ("control_scale", "control_runs", "temperature")


def settings_from(texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE arguments as a dict, typed as a recipe types them."""
    from genzoo.core.recipe_text import parse_value
    from genzoo.core.recipe_tree import plain

    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{text[:80]!r} is not of the form key=value", fix="for example steps=50")
        read = plain(parse_value(value, key))
        if key in settings and settings[key] != read:
            raise UsageError(f"{key} is given twice: {settings[key]!r} and {read!r}", fix="give it once")
        settings[key] = read
    return settings


def asks_for_rows(given: Mapping[str, Any]) -> bool:
    """Whether an option of sampling is a list with a value for each sample, which says how many there are."""
    return any(isinstance(value, list) for key, value in given.items() if key not in SHARED_LISTS)


def read_controls(texts: list[str] | None) -> str | dict[str, str] | None:
    """A control picture, or several as {name of an extractor: picture} from NAME=PICTURE."""
    from genzoo.core.registry import CONTROLS

    split = [(text, *text.partition("=")[::2]) for text in texts or []]
    named = {name: path for text, name, path in split if name in CONTROLS and not exists(text)}
    if not split:
        return None
    if len(named) == len(split):
        return named
    if len(split) == 1:
        return split[0][0]
    raise UsageError(
        f"{len(split)} controls need a name each, and no name twice",
        fix=f"write --control canny=a.png --control hed=b.png; names are {', '.join(CONTROLS)}",
    )


def read_labels(texts: list[str] | None) -> int | str | list[int | str] | None:
    """Class labels: numbers, also between commas, and names, which the run knows."""
    labels: list[int | str] = []
    for text in texts or []:
        parts = text.split(",")
        numbers = all(part.strip().isdecimal() for part in parts)
        labels += [int(part) for part in parts] if numbers else [text]
    return labels if len(labels) > 1 else next(iter(labels), None)


def require_run(run: str | Path, what: str = "a run folder") -> None:
    """Raise an error for a run that is not there, before anything heavy is imported."""
    if is_shipped(run):
        shipped_folder(run)
        return
    if not str(run).startswith("hf:/"):
        require_path(run, what, fix="name the --output of a training, or hf://user/repo")
