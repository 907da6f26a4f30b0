"""The constructor's signature is the schema: settings of a section checked against a factory, all at once."""

from __future__ import annotations

import collections.abc
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

from genzoo.core.errors import did_you_mean, nearest
from genzoo.core.ranges import range_problem
from genzoo.core.recipe_tree import MISSING

AUTO = "auto"


class Problem(NamedTuple):
    """One thing wrong with a recipe. key: dotted, without the file."""

    key: str
    message: str


class Parameter(NamedTuple):
    """What a factory accepts under one name."""

    annotation: Any
    required: bool


def parameters(factory: Callable[..., Any], *, keyword_only: bool = False) -> dict[str, Parameter]:
    """The factory's named parameters. keyword_only: just those that a caller cannot pass by position."""
    skip = (
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
        inspect.Parameter.POSITIONAL_ONLY,
    )
    found = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        by_position = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        if parameter.kind not in skip and not (keyword_only and by_position):
            found[name] = Parameter(
                _annotation(factory, parameter), parameter.default is inspect.Parameter.empty
            )
    return found


def takes_anything(factory: Callable[..., Any]) -> bool:
    """True when the factory has a **kwargs parameter."""
    kinds = [parameter.kind for parameter in inspect.signature(factory).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def check_settings(
    settings: Mapping[str, Any],
    allowed: Mapping[str, Parameter],
    *,
    key: str,
    owner: str,
    supplied: Collection[str] = (),
    auto: Collection[str] = (),
    open_ended: bool = False,
    what: str = "argument",
) -> list[Problem]:
    """Problems of one section: unknown keys with the nearest names, wrong types, required keys left out.

    allowed: what `owner` accepts. supplied: names the program fills in. auto: names that may say `auto`.
    what: settings are called in messages.
    A value of `???` is not a problem here; `Recipe.missing` lists those.
    """
    problems = []
    valid = [name for name in allowed if name not in supplied]
    for name, value in settings.items():
        if name in valid:
            left_open = _left_open(name, value, auto)
            wrong = None if left_open else setting_problem(name, value, allowed[name].annotation)
            problems += [Problem(f"{key}.{name}", wrong)] if wrong else []
        elif not open_ended:
            problems.append(Problem(f"{key}.{name}", f"{owner} has no {what} {name!r}; {_hint(name, valid)}"))
    for name in valid:
        if allowed[name].required and name not in settings:
            problems.append(Problem(f"{key}.{name}", f"{owner} needs a value for {name!r}"))
    return problems


def _left_open(name: str, value: Any, auto: Collection[str]) -> bool:
    return isinstance(value, str) and (value == MISSING or (value == AUTO and name in auto))


def _hint(name: str, valid: list[str]) -> str:
    if nearest(name, valid):
        return did_you_mean(name, valid)
    return f"it has {', '.join(sorted(valid))}" if valid else "it takes no settings"


def setting_problem(name: str, value: Any, annotation: Any) -> str | None:
    """What is wrong with a setting's type, or with its number; None when nothing is."""
    return type_problem(value, annotation) or range_problem(name, value)


def type_problem(value: Any, annotation: Any) -> str | None:
    """'must be a whole number, not 'x'', or None when the value fits or the annotation is beyond a recipe."""
    if _fits(value, annotation):
        return None
    number = isinstance(value, str) and annotation in (int, float)
    return f"must be {describe(annotation)}, not {value!r}" + (" (text)" if number else "")


def plain_problem(value: Any, annotation: Any) -> str | None:
    """As `type_problem`, for options that Python may give tensors and the like, and a command line may not.

    Tensors and other objects pass; numbers, texts and lists are held against the types that a recipe can
    write, so that text does not fit "a number or a tensor".
    """
    return type_problem(value, _writable(annotation)) if _is_plain(value) else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str))


def _writable(annotation: Any) -> Any:
    """An annotation without those members of its unions that no recipe can write; itself if none is left."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    kept = [part for part in typing.get_args(annotation) if _can_be_written(part)]
    return Union[tuple(kept)] if kept else annotation  # noqa: UP007  (made of what is found)


def _can_be_written(annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(map(_can_be_written, arguments))
    if origin is None:
        return annotation in (*_WORDS, None, type(None), list, tuple, dict, Any)
    inner = [part for part in arguments if part is not Ellipsis]
    return origin is Literal or not inner or _can_be_written(inner[-1])


def _fits(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin in (collections.abc.Sequence, list, tuple, set, frozenset) or annotation in (list, tuple):
        return _fits_sequence(value, origin, arguments)
    if origin in (collections.abc.Mapping, dict) or annotation is dict:
        inner = arguments[1] if len(arguments) == 2 else Any
        return isinstance(value, Mapping) and all(_fits(item, inner) for item in value.values())
    return _fits_scalar(value, annotation)


def _fits_sequence(value: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    return all(_fits(item, arguments[0]) for item in value) if arguments else True


def _fits_scalar(value: Any, annotation: Any) -> bool:
    if annotation in (None, type(None)):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, Real) and not isinstance(value, bool) and _is_finite(value)
    if annotation is str or annotation is Path:
        return isinstance(value, str)
    return True  # tensors, modules, callables: checked by the code that builds them


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}

_MANY = {int: "whole numbers", float: "finite numbers", str: "texts", Path: "paths"}


def describe(annotation: Any) -> str:
    """A type in words a recipe's author knows."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return "null"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(part) for part in arguments))
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if origin in (collections.abc.Sequence, list, tuple):
        return _described_list(origin, arguments)
    if origin in (collections.abc.Mapping, dict):
        return "a mapping"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _described_list(origin: Any, arguments: tuple[Any, ...]) -> str:
    inner = [part for part in arguments if part is not Ellipsis]
    if not inner:
        return "a list"
    many = f"{len(inner)} " if origin is tuple and len(inner) == len(arguments) else ""
    return f"a list of {many}{_MANY.get(inner[0]) or f'values, each {describe(inner[0])}'}"


def _annotation(factory: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The parameter's type, or Any when it names something imported for type checkers only."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    target = inspect.unwrap(factory)
    module = sys.modules.get(getattr(target, "__module__", ""))
    try:
        return eval(annotation, dict(vars(module)) if module else {}, vars(typing))
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any
