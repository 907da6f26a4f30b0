"""Temporary names that say whose they are, so that what a killed process left can go, and nothing else.

    .tmp-MACHINE-PID-BEGAN-TOKEN-NAME

The next writer in the same folder removes those whose process is gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from functools import lru_cache
from pathlib import Path

from genzoo.core.process_identity import machine, process_start

TEMPORARY = ".tmp-"
KEPT = 40  # characters of the name it will have: with all of them a long name would be too long
FORGOTTEN = 7 * 24 * 3600.0  # seconds after which another machine's process is taken for gone
_NAME = re.compile(r"\.tmp-([0-9a-f]{8})-(\d+)-(\w+)-[0-9a-f]{8}-.*", re.DOTALL)
_tidied: set[tuple[int, str]] = set()


def temporary(path: Path) -> Path:
    """A sibling of `path` that no other process, fork or call uses; it keeps the suffix."""
    pid = os.getpid()
    return path.with_name(
        f"{TEMPORARY}{machine()}-{pid}-{_began(pid)}-{secrets.token_hex(4)}-{path.name[-KEPT:]}"
    )


def tidy(folder: Path) -> None:
    """`remove_leftovers` where this process has not looked yet."""
    place = (os.getpid(), os.path.abspath(folder))
    if place not in _tidied:
        _tidied.add(place)
        remove_leftovers(folder)


def remove_leftovers(folder: Path, *, only_writer: bool = False) -> None:
    """Remove what killed processes left in a folder. Never raises: left-overs are in nobody's way.

    only_writer: nobody else writes here, so whatever has a temporary name is left over.
    """
    with contextlib.suppress(OSError):
        found = [Path(entry) for entry in os.scandir(folder) if entry.name.startswith(TEMPORARY)]
        for path in found:
            if only_writer or _is_abandoned(path):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a folder; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _is_abandoned(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return False
    where, pid, began = match[1], int(match[2]), match[3]
    if where == machine() and began != "unknown":
        return process_start(pid) != began
    with contextlib.suppress(OSError):
        return time.time() - path.lstat().st_mtime > FORGOTTEN
    return False


@lru_cache(maxsize=8)
def _began(pid: int) -> str:
    return process_start(pid) or "unknown"
