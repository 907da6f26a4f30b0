"""How the text of a recipe becomes a tree of values.

A recipe is data and is not trusted. Limits hold before anything is built: size, nesting, number of values.
Environment interpolation does not exist.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genzoo.core.errors import RecipeError
from genzoo.core.recipe_source import display
from genzoo.core.recipe_tree import Leaf, Tree

MAX_BYTES = 64 * 1024
MAX_DEPTH = 24
MAX_VALUES = 4000
_SURPRISING = re.compile(r"[-+]?(0[0-7_]+|[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # base 8 and base 60


def read_tree(path: Path) -> dict[str, Tree]:
    """Parse one file into a tree of leaves; its top must be a mapping."""
    origin = display(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        is_wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell's > writes
        text = raw.decode("utf-16" if is_wide else "utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{origin}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{origin}: is not UTF-8 text (byte {error.start})", fix="save it as UTF-8"
        ) from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{origin}: is larger than {MAX_BYTES // 1024} KiB, which no recipe needs")
    tree = parse(text, origin)
    if not isinstance(tree, dict):
        raise RecipeError(f"{origin}: a recipe is a mapping of `key: value` lines")
    return tree


def parse(text: str, origin: str) -> Tree:
    """YAML text of a whole file to a tree. Every way in which the parsers fail becomes a RecipeError."""
    return _guarded(text, origin, dotlist=False)


def parse_value(text: str, origin: str) -> Tree:
    """The right-hand side of an override, typed as YAML types it."""
    return _guarded(text, origin, dotlist=True)


def _guarded(text: str, origin: str, *, dotlist: bool) -> Tree:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if len(text) > MAX_BYTES:
        raise RecipeError(f"{origin}: is longer than {MAX_BYTES} characters")
    try:
        _check_events(yaml.parse(text, Loader=_event_loader()), origin)
        config = OmegaConf.from_dotlist([f"value={text}"]) if dotlist else OmegaConf.create(text or "{}")
        plain = OmegaConf.to_container(config, resolve=False)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        if "nesting depth" in str(error.problem):
            raise RecipeError(f"{origin}{line}: is nested deeper than {MAX_DEPTH} levels") from error
        hint = 'inside { } write "???" in quotes' if "???" in text else None
        raise RecipeError(
            f"{origin}{line}: is not valid YAML: {error.problem or error.context}", fix=hint
        ) from error
    except RecipeError:
        raise
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ArithmeticError, LookupError) as error:
        raise RecipeError(f"{origin}: is not a valid recipe: {_first_line(error)}") from error
    except (TypeError, ValueError, AttributeError, AssertionError) as error:  # omegaconf lets these through
        raise RecipeError(f"{origin}: is not a valid recipe: {_first_line(error)}") from error
    if dotlist and isinstance(plain, dict):
        plain = plain.get("value")
    return _wrap(plain, origin, "")


def _event_loader() -> Any:
    # the same parser that omegaconf takes: libyaml where PyYAML was built with it
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _check_events(events: Iterator[Any], origin: str) -> None:
    """Refuse deep or huge text while it streams by, before any object is built from it."""
    from yaml import events as kinds

    depth = count = 0
    for event in events:
        if isinstance(event, kinds.CollectionStartEvent):
            depth += 1
        elif isinstance(event, kinds.CollectionEndEvent):
            depth -= 1
        count += isinstance(event, kinds.NodeEvent)
        if isinstance(event, kinds.ScalarEvent) and event.implicit[0] and _SURPRISING.fullmatch(event.value):
            raise RecipeError(
                f"{origin}: YAML reads {event.value} as the number {_surprise(event.value)}",
                fix=f'write the number that is meant, or "{event.value}" in quotes for text',
            )
        if depth > MAX_DEPTH:
            raise RecipeError(
                f"{origin}, line {event.start_mark.line + 1}: is nested deeper than {MAX_DEPTH} levels"
            )
        if count > 2 * MAX_VALUES:
            raise RecipeError(f"{origin}: holds more than {MAX_VALUES} values")


def _surprise(text: str) -> object:
    import yaml

    return yaml.safe_load(text)


def _wrap(value: Any, origin: str, key: str) -> Tree:
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or not name or "." in name:
                where = f"{key}.{name}" if key else str(name)
                raise RecipeError(
                    f"{origin}: key {where!r} must be text without dots; quote it if it is a word like `on`"
                )
        return {name: _wrap(item, origin, f"{key}.{name}" if key else name) for name, item in value.items()}
    if isinstance(value, list):
        return [_wrap(item, origin, f"{key}.{index}") for index, item in enumerate(value)]
    if isinstance(value, str) and "${" in value:
        raise RecipeError(
            f"{origin}: {key or 'value'}: `${{` interpolation is not part of recipes; write the value itself"
        )
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise RecipeError(
            f"{origin}: {key}: {type(value).__name__} values are not part of recipes; use text or numbers"
        )
    return Leaf(value, origin)
