"""Families outside this package: found by entry point, or imported by name.

A package that is installed declares the group and the module that is its card of names:

    [project.entry-points."genzoo.families"]
    my_family = "my_package"

A module that is not installed is named on the command line, `genzoo --import my_module train ...`. In Python,
importing it is enough for its names; `load_module` also lets `configs` and `recipes` in its folder be found,
as those of installed packages are.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from genzoo.core.errors import UsageError
from genzoo.core.recipe_source import add_root
from genzoo.core.registry import note_unread

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "genzoo.families"
_NAMED: list[str] = []
logger = logging.getLogger(__name__)


def load_installed() -> None:
    """Read the cards of all installed packages that declare the group.

    One that fails is reported, and named wherever a name turns out to be missing; commands that have no
    need of it go on.
    """
    for point in installed():
        try:
            _add(importlib.import_module(point.module))
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).partition(os.linesep)[0]}"
            note_unread(point.name, reason)
            logger.warning("the family %r (%s) cannot be read: %s", point.name, point.value, reason)


def loaded_modules() -> list[str]:
    """The modules that `load_module` read, so that a process started by this one can be told of them."""
    return list(_NAMED)


def load_module(name: str) -> None:
    """Import a module that declares names; modules beside the current folder are found too.

    Raises UsageError naming it when it cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        _add(importlib.import_module(name))
        _NAMED.append(name)
    except Exception as error:
        raise UsageError(
            f"--import {name}: this module cannot be imported",
            why=f"{type(error).__name__}: {error}",
            fix="name a module that is installed or beside the current folder; --debug shows more",
        ) from error


def installed() -> Iterable[EntryPoint]:
    """The entry points of the group."""
    if not _is_declared():  # the whole search takes fifty times as long, and every command waits for it
        return ()
    from importlib.metadata import entry_points

    return sorted(entry_points(group=GROUP))


def _is_declared() -> bool:
    folders = (Path(entry or ".") for entry in sys.path)
    files = (file for folder in folders for file in folder.glob("*-info/entry_points.txt"))
    return any(GROUP.encode() in _content(file) for file in files)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # not ours to judge
        return b""


def _add(module: ModuleType) -> None:
    if module.__file__ is not None:
        add_root(Path(module.__file__).resolve().parent)
