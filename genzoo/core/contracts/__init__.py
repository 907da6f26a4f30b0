"""Optional abilities, one small protocol for each, and `able`, the one place that asks for them.

What everything of a kind must have stands in genzoo.core.types. What only some have is here, by who has it:
`tasks`, `datasets`, `models`, `execution` (how a model is run), and `parts` (codecs, extractors, samplers,
metrics, layouts). Something has an ability by having the members, and needs no import and no base class.

    flips = able(dataset, Flips)
    if flips is not None and flips.horizontal_flip: ...

Compare with None: an empty data set is false.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, cast

T = TypeVar("T")


def able(x: object, ability: type[T]) -> T | None:
    """`x` as something with the ability, or None when it lacks a member of that protocol.

    A method set to None is a method that is not there.
    """
    attributes, methods = _attributes(ability), _methods(ability)
    has_all = all(hasattr(x, name) for name in attributes)
    return cast(T, x) if has_all and all(callable(getattr(x, name, None)) for name in methods) else None


def members(ability: type[Any]) -> tuple[str, ...]:
    """The attributes and methods that a protocol of this module asks for."""
    return (*_attributes(ability), *_methods(ability))


def _attributes(ability: type[Any]) -> list[str]:
    return list(inspect.get_annotations(ability))


def _methods(ability: type[Any]) -> list[str]:
    return [name for name, value in vars(ability).items() if callable(value) and not name.startswith("_")]
