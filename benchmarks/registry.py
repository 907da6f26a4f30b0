"""The table of benchmark cases; modules in `benchmarks/cases` add to it with the decorator."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import benchmarks.cases


@dataclass
class Options:
    """What the command line says: repeats of each timing, and KEY=VALUE settings of the case."""

    repeats: int = 5
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """run(options) returns rows: dicts with a `name`, timings and ratios. `group` is "cpu" or "gpu"."""

    name: str
    group: str
    help: str
    run: Callable[[Options], list[dict[str, Any]]]


CASES: dict[str, Case] = {}


def case(name: str, *, group: str = "cpu") -> Callable[[Callable[[Options], list[dict[str, Any]]]], Any]:
    """Register a function as a benchmark case."""

    def add(run: Callable[[Options], list[dict[str, Any]]]) -> Any:
        CASES[name] = Case(name, group, (run.__doc__ or "").strip().partition("\n")[0], run)
        return run

    return add


def load_cases() -> dict[str, Case]:
    """Import every module of `benchmarks.cases`."""
    for module in pkgutil.iter_modules(benchmarks.cases.__path__):
        importlib.import_module(f"benchmarks.cases.{module.name}")
    return CASES
