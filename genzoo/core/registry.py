"""Registries: one table per kind, from a name to a factory or to a `module:attribute` string.

Packages declare names with `lazy`, which imports nothing until first use; notebooks and plugins use the
`register` decorator.
The factory's signature is the schema of the recipe section that names it. Its port says what it is to the
other sections, and `takes` what it wants of them, so that a recipe whose parts do not fit is refused before
anything runs.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from genzoo.core.errors import MissingDependencyError, RegistryError, did_you_mean

Factory = Callable[..., Any]
Names = str | Iterable[str]
Takes = Mapping[str, "Names | None"]


@dataclass(frozen=True)
class Entry:
    """One name of a registry.

    target: the factory, or "module:attribute".   port: what it is to others, such as the calling convention
    of a sampler; empty for an entry that does not say, which then fits everywhere.   takes: section of a
    recipe -> the ports that may stand there; empty where the section has to be absent.   needs: sections
    that may not be left out.   pipeline: of a model, the class of the diffusers pipeline around it.
    """

    target: Factory | str
    help: str = ""
    port: tuple[str, ...] = ()
    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    pipeline: str = ""

    def fits(self, ports: Iterable[str]) -> bool:
        """Whether it is one of these ports, or says nothing about its own."""
        return not self.port or bool({*self.port} & {*ports})


class Registry:
    """A table of names of one kind, such as models or samplers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def lazy(
        self,
        name: str,
        target: str,
        help: str = "",
        *,
        port: Names = (),
        takes: Takes | None = None,
        needs: Names = (),
        pipeline: str = "",
    ) -> None:
        """Declare `name` as "module:attribute"; nothing is imported until `get`. The rest as in `Entry`.

        port, needs, values of takes: one name or several; a value None means that the section stays away.
        """
        self._add(name, Entry(target, help, _names(port), _taken(takes), _names(needs), pipeline))

    def register(
        self,
        name: str,
        help: str = "",
        *,
        port: Names = (),
        takes: Takes | None = None,
        needs: Names = (),
        pipeline: str = "",
    ) -> Callable[[Factory], Factory]:
        """Decorator that adds a factory which is already imported."""

        def add(factory: Factory) -> Factory:
            about = help or (factory.__doc__ or "").strip().partition("\n")[0]
            self._add(name, Entry(factory, about, _names(port), _taken(takes), _names(needs), pipeline))
            return factory

        return add

    def _add(self, name: str, entry: Entry) -> None:
        known = self._entries.get(name)
        # the same place again is a module that was reloaded: its newer declaration counts
        if known is not None and _place(known.target) != _place(entry.target):
            raise RegistryError(
                f"{self.kind} {name!r} is already registered as {_place(known.target)};"
                f" {_place(entry.target)} needs another name"
            )
        self._entries[name] = entry

    def entry(self, name: str) -> Entry:
        """What was declared under that name. Raises RegistryError with the nearest names."""
        if name not in self._entries:
            hint = did_you_mean(name, self._entries) or f"known: {', '.join(self.names()) or 'none'}"
            unread = "".join(f"; the family {key!r} cannot be read: {why}" for key, why in _UNREAD.items())
            raise RegistryError(f"there is no {self.kind} {name!r}; {hint}{unread}")
        return self._entries[name]

    def get(self, name: str) -> Factory:
        """The factory of that name, imported now if it was declared lazily.

        Raises RegistryError when it is not where its declaration says, and MissingDependencyError when the
        module that holds it needs a package that is not installed.
        """
        target = self.entry(name).target
        return self._import(name, target) if isinstance(target, str) else target

    def _import(self, name: str, target: str) -> Factory:
        module, _, attribute = target.partition(":")
        try:
            factory: Factory = getattr(importlib.import_module(module), attribute)
        except MissingDependencyError:
            raise
        except ModuleNotFoundError as error:
            if error.name is None or f"{module}.".startswith(f"{error.name}."):
                raise self._misplaced(name, target, error) from error
            package = error.name.partition(".")[0]
            raise MissingDependencyError(
                f"{self.kind} {name!r} needs the package {package}",
                where=target,
                why=str(error),
                fix=f"pip install {package}",
            ) from error
        except (ImportError, AttributeError) as error:
            raise self._misplaced(name, target, error) from error
        return factory

    def _misplaced(self, name: str, target: str, error: Exception) -> RegistryError:
        return RegistryError(
            f"{self.kind} {name!r} is declared as {target}, which cannot be imported: {error}",
            fix="mend the package that declares it",
        )

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell pattern."""
        return sorted(fnmatch.filter(self._entries, pattern))

    def fitting(self, ports: Iterable[str]) -> list[str]:
        """Sorted names that declare one of these ports."""
        wanted = {*ports}
        return [name for name in self.names() if wanted & {*self._entries[name].port}]

    def require_port(self, name: str, port: str) -> None:
        """Raise RegistryError, naming what would fit, when that entry declares other ports than this."""
        if not self.entry(name).fits([port]):
            raise RegistryError(
                f"{self.kind} {name!r} does not fit here", fix=f"one of {', '.join(self.fitting([port]))}"
            )

    def help(self, name: str) -> str:
        """The one-line description given at declaration."""
        return self.entry(name).help

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


_UNREAD: dict[str, str] = {}


def note_unread(family: str, reason: str) -> None:
    """Remember that a family's names are missing; whoever asks for an unknown name is told."""
    _UNREAD[family] = reason


def unread() -> dict[str, str]:
    """The families whose names are missing, and why."""
    return dict(_UNREAD)


def _names(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _taken(takes: Takes | None) -> dict[str, tuple[str, ...]]:
    return {section: () if ports is None else _names(ports) for section, ports in (takes or {}).items()}


def _place(target: Factory | str) -> str:
    """Where a factory is defined, "module:attribute"; of a callable without a name, what it is."""
    if isinstance(target, str):
        return target
    try:
        return f"{target.__module__}:{target.__qualname__}"
    except AttributeError:  # such as functools.partial
        return repr(target)


MODELS = Registry("model")
TASKS = Registry("task")
LOSSES = Registry("loss")
SCHEDULES = Registry("noise schedule")
SAMPLERS = Registry("sampler")
DATASETS = Registry("data set")
CODECS = Registry("codec")
CONTROLS = Registry("control")
OPTIMIZERS = Registry("optimizer")
METRICS = Registry("metric")
CONVERTERS = Registry("converter")

SOURCES = Registry("source")
"""Functions (path, *, options) -> Recipe | None: files that can be sampled although no training left a run
folder around them. None means that the path is nothing of theirs. The recipe's model section names the file,
so that building the task loads it; what the file does not say is `???` there, and the options (keyword-only)
supply it.
"""

FEATURES = Registry("feature network")
"""Builders (weights, device) -> FeatureNetwork; those that end in a colon take a model's name after it."""

COMMANDS = Registry("command")

REGISTRIES: dict[str, Registry] = {
    "architectures": MODELS,
    "tasks": TASKS,
    "losses": LOSSES,
    "schedules": SCHEDULES,
    "samplers": SAMPLERS,
    "datasets": DATASETS,
    "codecs": CODECS,
    "controls": CONTROLS,
    "optimizers": OPTIMIZERS,
    "metrics": METRICS,
    "networks": FEATURES,
    "converters": CONVERTERS,
    "sources": SOURCES,
    "commands": COMMANDS,
}
"""Every registry, under the word by which `genzoo list` shows it."""


def default_of(registry: Registry, name: str, option: str) -> Any:
    """What the factory of that name takes for an option that is left out; None when it has none like it."""
    parameter = inspect.signature(registry.get(name)).parameters.get(option) if name in registry else None
    return None if parameter is None or parameter.default is parameter.empty else parameter.default
