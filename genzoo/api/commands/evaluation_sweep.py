"""`genzoo evaluate RUN --sweep KEY=VALUE,VALUE`: reading it, running it, and its one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from genzoo.api.commands.arguments import settings_from
from genzoo.core.errors import UsageError

if TYPE_CHECKING:
    from genzoo.api.run import Run
    from genzoo.evaluation.comparison.rows import Row

Varied = tuple[str, Sequence[Any]]


def varied_setting(text: str, given: Mapping[str, Any]) -> Varied:
    """Name and values. Raises UsageError for fewer than two, for unlike kinds, and for one given twice."""
    from genzoo.api.training.sweep_grid import values_of

    name, _, listed = text.partition("=")
    values = [settings_from([f"{name}={value}"])[name] for value in values_of(listed)] if listed else []
    kinds = {float if isinstance(value, int) else type(value) for value in values}
    if len(values) < 2 or len(kinds) > 1:
        raise UsageError(
            f"--sweep {text[:80]!r} does not list values of one kind", fix="--sweep guidance_scale=1,1.5,2,3"
        )
    if name in given:
        raise UsageError(f"{name} is given beside --sweep {text[:80]}", fix="give it once")
    return name, values


def judge_sweep(run: Run, varied: Varied, unguided: bool, options: Mapping[str, Any]) -> Sequence[Row]:
    """Judge the run for each value, and say which one begins.   unguided: also without guidance, first."""
    from genzoo.api.evaluation.stated import UNGUIDED
    from genzoo.api.evaluation.sweep import GUIDANCE, evaluate_sweep

    name, values = varied
    if unguided and name != GUIDANCE:
        raise UsageError(
            f"--unguided beside a sweep of {name} would judge twice as often",
            fix="--guidance-scale 1 with the same --sweep judges it without guidance",
        )
    if unguided and UNGUIDED not in values:
        values = [UNGUIDED, *values]
    first = options["settings"].world.is_first

    def told(value: Any) -> None:
        if first:
            typer.echo(f"{name}={value}", err=True)

    return evaluate_sweep(run.data, name, values, told=told, **options)


def sweep_text(rows: Sequence[Row], *, as_json: bool) -> str:
    """One table of the sweep, or JSON of the same form as `genzoo compare --json`."""
    from genzoo.evaluation.comparison.rows import as_data, tables_of
    from genzoo.evaluation.comparison.text import comparison_text

    tables = tables_of(rows)
    if as_json:
        return json.dumps({"genzoo_comparison": 1, "tables": as_data(tables)}, indent=2, default=str)
    return comparison_text(tables)
