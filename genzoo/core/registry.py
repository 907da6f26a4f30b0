"""Registries: one dict per kind, from a name to a factory or to a `module:attribute` string.

Packages declare names with `lazy`, which imports nothing until first use; notebooks and plugins use the
`register` decorator.
The factory's signature is the schema of the recipe section that names it.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from genzoo.core.errors import RegistryError, did_you_mean

Factory = Callable[..., Any]


class Registry:
    """A table of names of one kind, such as models or samplers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Factory | str] = {}
        self._help: dict[str, str] = {}

    def lazy(self, name: str, target: str, help: str = "") -> None:
        """Declare `name` as "module:attribute"; nothing is imported until `get`."""
        self._add(name, target)
        self._help[name] = help

    def register(self, name: str, help: str = "") -> Callable[[Factory], Factory]:
        """Decorator that adds a factory which is already imported."""

        def add(factory: Factory) -> Factory:
            self._add(name, factory)
            self._help[name] = help or (factory.__doc__ or "").strip().partition("\n")[0]
            return factory

        return add

    def _add(self, name: str, entry: Factory | str) -> None:
        known = self._entries.get(name)
        if known is not None and known != entry:
            raise RegistryError(
                f"{self.kind} {name!r} is already registered as {known}; {entry} needs another name"
            )
        self._entries[name] = entry

    def get(self, name: str) -> Factory:
        """The factory of that name, imported now if it was declared lazily."""
        if name not in self._entries:
            hint = did_you_mean(name, self._entries) or f"known: {', '.join(self.names()) or 'none'}"
            raise RegistryError(f"there is no {self.kind} {name!r}; {hint}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = getattr(importlib.import_module(module), attribute)
            self._entries[name] = entry
        return entry

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell pattern."""
        return sorted(fnmatch.filter(self._entries, pattern))

    def help(self, name: str) -> str:
        """The one-line description given at declaration."""
        return self._help.get(name, "")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


MODELS = Registry("model")
TASKS = Registry("task")
LOSSES = Registry("loss")
SAMPLERS = Registry("sampler")
DATASETS = Registry("data set")
CODECS = Registry("codec")
METRICS = Registry("metric")
COMMANDS = Registry("command")
CONVERTERS = Registry("converter")
CONTROLS = Registry("control")
