"""One rule for `--option VALUE` and OPTION=VALUE: what is an option may be written either way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.core

from genzoo.core.errors import UsageError


class EitherSpelling(typer.core.TyperCommand):
    """A command that takes num=16 for --num 16, and prune=true for --prune; other KEY=VALUEs stay."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, as_options(args, self.params))


def as_options(args: list[str], params: list[Any]) -> list[str]:
    """Arguments with every OPTION=VALUE spelt as an option. Raises UsageError for one that is given twice."""
    known = {name: param for param in params if param.param_type_name == "option" for name in _names(param)}
    takers = {opt for param in known.values() if not param.is_flag for opt in param.opts}
    moved, stay = [], []
    for before, text in zip(["", *args], args, strict=False):
        key, equals, value = text.partition("=")
        # what follows an option that takes a value is that value: --sweep guidance_scale=1,2
        param = known.get(key) if equals and before not in takers else None
        if param is None:
            stay.append(text)
            continue
        _refuse_twice(key, param, args)
        moved += _spelt(param, key, value)
    return [*moved, *stay]


def _names(param: Any) -> set[str]:
    """How KEY=VALUE may call an option: as in Python, or as its long form, with either dash."""
    long = [opt.removeprefix("--") for opt in param.opts if opt.startswith("--")]
    return {param.name, *long, *(name.replace("-", "_") for name in long)} - {"help"}


def _spelt(param: Any, key: str, value: str) -> list[str]:
    option = max(param.opts, key=len)
    if not param.is_flag:
        return [f"{option}={value}"]
    if value.lower() not in ("true", "false"):
        raise UsageError(f"{key} is {value!r}", fix=f"write {key}=true, or {option}")
    return [option] if value.lower() == "true" else list(param.secondary_opts[:1])


def _refuse_twice(key: str, param: Any, args: list[str]) -> None:
    values = list(dict.fromkeys(_values(param, args)))
    if len(values) > 1 and not param.multiple:
        raise UsageError(f"{key} is given twice: {' and '.join(values)}", fix="give it once")


def _values(param: Any, args: list[str]) -> Iterator[str]:
    """Everything that is said of an option, in either spelling."""
    names = {*_names(param), *param.opts}
    for text, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = text.partition("=")
        if name in names and equals:
            yield value
        elif text in param.opts:
            yield "true" if param.is_flag else following
