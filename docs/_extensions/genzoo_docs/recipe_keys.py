"""The page of recipe keys: those that `genzoo validate` accepts, read from where it reads them."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from genzoo.api.recipes.check import KINDS, _sampling_parameters
from genzoo.api.recipes.plan import SECTIONS
from genzoo.api.recipes.sections import Evaluation, HeldOut, InitFrom, Preview, Sampling
from genzoo.api.sampling.sample_run import sample_run_to
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import SuppliesLossOptions
from genzoo.core.errors import GenzooError
from genzoo.core.registry import SAMPLERS, TASKS
from genzoo.core.signatures import AUTO, describe, parameters, takes_anything
from genzoo.training.config import TrainConfig
from genzoo.training.rates import Curve
from genzoo_docs.common import COMMON
from genzoo_docs.docstrings import words
from genzoo_docs.tables import cell, code_cell, table

Factory = Callable[..., Any]
RECORDS: dict[str, Factory] = {
    "train": TrainConfig,
    "preview": Preview,
    "held_out": HeldOut,
    "evaluation": Evaluation,
    "init_from": InitFrom,
}
SHARED: dict[str, Factory] = {"sampler": Sampling, "optim": Curve}
"""What a section has whatever it names."""
WHERE = {"loss": "task.loss", "control": "task.control", "metric": "report"}
REFERS = re.compile(r"\b(?:see|as in|those of) ([A-Za-z_][\w.]*)")
HEAD = ("key", "default", "type", "meaning")


class Key(NamedTuple):
    """One key of a section."""

    name: str
    default: str
    type: str
    meaning: str


def keys(factory: Factory, kind: str | None = None) -> list[Key]:
    """The keys that a recipe may give to a factory.   kind: of KINDS, where a section names it."""
    checked = KINDS.get(kind or "")
    allowed = parameters(factory, keyword_only=checked is not None and checked.options)
    left_out = {*(checked.injected if checked else ()), *supplied(kind)}
    may_be_auto = checked.auto if checked else ()
    defaults = {name: one.default for name, one in inspect.signature(factory).parameters.items()}
    said = _words(factory, allowed)
    return [
        Key(
            name,
            "needed" if one.required else _value(defaults[name]),
            describe(one.annotation) + (f", or {AUTO}" if name in may_be_auto else ""),
            said.get(name, ""),
        )
        for name, one in allowed.items()
        if name not in left_out
    ]


def supplied(kind: str | None) -> set[str]:
    """Options of a loss that every task that has losses sets itself."""
    if kind != "loss":
        return set()
    tasks = [able(TASKS.get(name), SuppliesLossOptions) for name in TASKS]
    return {name for task in tasks if task is not None for name in task.supplies}


def _words(factory: Factory, names: Mapping[str, Any]) -> dict[str, str]:
    """What is said of each key: by the factory, by what it refers to ("see ClipWindow"), or by COMMON."""
    found = _own_words(factory, names)
    elsewhere: dict[str, str] = {}
    for other in _referred(factory):
        elsewhere |= _own_words(other, names)
    own = {name: text for name, text in found.items() if not REFERS.match(text)}
    usual = {name: COMMON[name] for name in names if name in COMMON}
    return {**found, **usual, **elsewhere, **own}


def _own_words(factory: Any, names: Mapping[str, Any]) -> dict[str, str]:
    """The docstring's words; of a class also those of its constructor and of the classes it is made from."""
    found: dict[str, str] = {}
    for one in inspect.getmro(factory)[::-1] if inspect.isclass(factory) else (factory,):
        found |= words(vars(one).get("__doc__") if inspect.isclass(one) else one.__doc__, names)
        if inspect.isclass(one) and "__init__" in vars(one):
            found |= words(one.__init__.__doc__, names)
    return found


def _referred(factory: Any) -> Iterator[Any]:
    """Functions and classes to which a docstring sends its reader: by name, or from the package down."""
    module = sys.modules[factory.__module__]
    for name in REFERS.findall(" ".join((inspect.getdoc(factory) or "").split())):
        path, _, last = name.rstrip(".").rpartition(".")
        with contextlib.suppress(ImportError, ValueError):
            place = importlib.import_module(path) if path.startswith("genzoo.") else module
            thing = getattr(place, last, None)
            if callable(thing):
                yield thing


def _value(value: Any) -> str:
    """A default as a recipe writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if isinstance(value, (int, str)) else re.sub(r" at 0x\w+", "", repr(value))


def written() -> str:
    """Every section: what it always has, then each name it may hold and that name's own keys."""
    parts = []
    for section in (*SECTIONS, *(kind for kind in KINDS if kind not in SECTIONS and kind != "metric")):
        parts += [f"## {WHERE.get(section, section)}", *_section(section)]
    return "\n\n".join(part for part in parts if part)


def _section(section: str) -> Iterator[str]:
    if section == "name":
        yield "Text: the run's folder below `runs/`, where `--output` is left out."
    if section in RECORDS:
        yield _first_line(RECORDS[section])
        yield _table(keys(RECORDS[section]))
    if section in SHARED:
        yield "Whatever the section names:"
        yield _table(keys(SHARED[section]))
    kind = "metric" if section == "report" else section
    if kind in KINDS:
        yield "A list of sections, each with a `name`." if kind == "metric" else ""
        for name in KINDS[kind].registry.names():
            yield from _named(kind, name)


def _named(kind: str, name: str) -> Iterator[str]:
    registry = KINDS[kind].registry
    yield f"### {WHERE.get(kind, kind)}: {name}"
    yield cell(registry.help(name)) + "."
    try:
        factory = registry.get(name)
    except GenzooError as error:  # an optional package is not here
        yield f"({error.what})"
        return
    yield _table(keys(factory, kind)) or "No keys of its own."
    if takes_anything(factory) and not KINDS[kind].options:
        yield "Further keys are handed on as they are."


def _table(found: list[Key]) -> str:
    return table(HEAD, [(code_cell(k.name), code_cell(k.default), k.type, k.meaning) for k in found])


def _first_line(factory: Factory) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]


def sampling_written() -> str:
    """What may follow `genzoo sample RUN` as KEY=VALUE: of every run, of each task, of each sampler."""
    own = [key for key in keys(sample_run_to) if key.name not in ("run", "folder", "world", "progress")]
    parts = ["## Of every run", _table(own)]
    for name in TASKS:
        factory = TASKS.get(name)
        what = [key for key in keys(factory.conditions) if key.name not in ("self", "num")]
        how = [name for name in _sampling_parameters({"name": name}) if name not in parameters(Sampling)]
        parts += [f"## Of the task {name}", _table(what)]
        parts += [f"And of how it samples: {', '.join(f'`{key}`' for key in how)}."] if how else []
    for name in SAMPLERS:
        found = keys(SAMPLERS.get(name), "sampler")
        parts += [f"## Of the sampler {name}", _table(found) or "None of its own."]
    return "\n\n".join(part for part in parts if part)
