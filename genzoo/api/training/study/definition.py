"""What a study file says: a recipe, cells that change it, what is measured, and what a paper says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.core.recipe_source import display
from genzoo.core.recipe_text import read_tree
from genzoo.core.recipe_tree import plain

KEYS = ("title", "paper", "recipe", "settings", "seeds", "measures", "cells", "claims", "found")
CELL_KEYS = ("about", "settings", "paper", "base")
CLAIM_KEYS = ("says", "better", "than", "by", "lower", "against")
_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Base:
    """A run that a cell stands on, trained first: its settings name the folder as {base}."""

    recipe: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One form of the recipe.   about: what it is, in words.   paper: what the paper prints, by heading."""

    name: str
    about: str = ""
    settings: tuple[str, ...] = ()
    paper: Mapping[str, Any] = field(default_factory=dict)
    base: Base | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper: cell `better` beats cell `than` in the measure `by`.

    lower: less is better.   against: the measure of `than`, where it is another one.
    """

    says: str
    better: str
    than: str
    by: str
    lower: bool = False
    against: str = ""


@dataclass(frozen=True)
class Study:
    """settings: of every cell.   measures: name of each by its heading in tables.   found: what came out."""

    name: str
    title: str
    recipe: str
    cells: tuple[Cell, ...]
    measures: Mapping[str, str]
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    paper: str = ""
    claims: tuple[Claim, ...] = ()
    found: str = ""

    def cell(self, name: str) -> Cell:
        """The cell of that name. Raises UsageError, with the nearest, when there is none."""
        found = next((cell for cell in self.cells if cell.name == name), None)
        if found is None:
            names = [cell.name for cell in self.cells]
            raise UsageError(
                f"study {self.name} has no cell {name!r}",
                fix=did_you_mean(name, names) or f"choose of {', '.join(names)}",
            )
        return found


def is_study(path: str | Path) -> bool:
    """Whether a path is a file with cells."""
    return Path(path).suffix == ".yaml" and Path(path).is_file() and "cells" in read_tree(Path(path))


def read_study(path: str | Path) -> Study:
    """The study in a file. Raises UsageError for keys that mean nothing and claims about no cell of it."""
    path = Path(path)
    content, where = plain(read_tree(path)), display(path)
    _require_keys(content, KEYS, where, needed=("title", "recipe", "measures", "cells"))
    study = Study(
        name=path.stem,
        title=str(content["title"]),
        recipe=str(content["recipe"]),
        settings=_overrides(content.get("settings"), where),
        seeds=tuple(content.get("seeds", (0, 1, 2))),
        measures={heading: str(name) for name, heading in _pairs(content["measures"], f"{where}: measures")},
        cells=tuple(
            _cell(name, body, where) for name, body in _mapping(content["cells"], f"{where}: cells").items()
        ),
        paper=str(content.get("paper", "")),
        claims=tuple(_claim(body, where) for body in content.get("claims", [])),
        found=str(content.get("found", "")).strip(),
    )
    for claim in study.claims:
        study.cell(claim.better), study.cell(claim.than)
        for measure in (claim.by, claim.against or claim.by):
            if measure not in study.measures:
                raise UsageError(f"a claim is judged by {measure!r}, which is no measure of it", where=where)
    return study


def _cell(name: str, body: Any, where: str) -> Cell:
    where = f"{where}: cells.{name}"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a folder", where=where, fix="use letters, digits, _ and -")
    body = _mapping(body, where)
    _require_keys(body, CELL_KEYS, where)
    base = None
    if "base" in body:
        _require_keys(body["base"], ("recipe", "settings"), f"{where}.base", needed=("recipe",))
        base = Base(str(body["base"]["recipe"]), _overrides(body["base"].get("settings"), where))
    paper = {heading: value for value, heading in _pairs(body.get("paper", []), f"{where}.paper")}
    return Cell(name, str(body.get("about", "")), _overrides(body.get("settings"), where), paper, base)


def _claim(body: Any, where: str) -> Claim:
    where = f"{where}: claims"
    _require_keys(body, CLAIM_KEYS, where, needed=("says", "better", "than", "by"))
    return Claim(**body)


def _overrides(settings: Any, where: str) -> tuple[str, ...]:
    """Settings as they would be typed behind a recipe: a section that has a name is replaced as a whole."""
    found = []
    for section, value in _mapping(settings, f"{where}: settings").items():
        part = isinstance(value, Mapping) and "name" not in value
        for key, one in value.items() if part else [("", value)]:
            text = one if isinstance(one, str) else json.dumps(one)
            found.append(f"{section}.{key}={text}" if part else f"{section}={text}")
    return tuple(found)


def _pairs(value: Any, where: str) -> list[tuple[Any, str]]:
    """Pairs of a value and the heading that it has in tables."""
    if not isinstance(value, list) or not all(isinstance(one, list) and len(one) == 2 for one in value):
        raise UsageError(f"this is a list of [value, heading], not {value!r}", where=where)
    return [(found, str(heading)) for found, heading in value]


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UsageError(f"this is a mapping, not {value!r}", where=where)
    return {str(key): one for key, one in (value or {}).items()}


def _require_keys(value: Any, known: Sequence[str], where: str, needed: Iterable[str] = ()) -> None:
    found = _mapping(value, where)
    for key in found:
        if key not in known:
            fix = did_you_mean(key, known) or f"keys are {', '.join(known)}"
            raise UsageError(f"{key!r} means nothing here", where=where, fix=fix)
    for key in needed:
        if key not in found:
            raise UsageError(f"{key!r} is missing", where=where)
