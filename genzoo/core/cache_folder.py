"""Where files are kept that any run may need again and anybody may delete."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import tempfile
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)


def user_cache() -> Path:
    """$XDG_CACHE_HOME, else ~/.cache: where other programs keep theirs too; without a home, a folder of ours.

    A container that runs as a bare user id has no home, or one that cannot be written.
    """
    xdg = os.environ.get("XDG_CACHE_HOME")
    if xdg:
        return Path(xdg)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return _private("there is no home folder; HOME is not set")


def cache_folder(name: str) -> Path:
    """The folder `name` in $GENZOO_CACHE, else in genzoo's part of the user's cache; it need not exist.

    Where the user's cache cannot be written, a private folder beside the system's temporary files.
    """
    explicit = os.environ.get("GENZOO_CACHE")
    if explicit:
        return Path(explicit) / name
    place = user_cache() / "genzoo"
    return (place if _can_be_written(place) else _private(f"{place} cannot be written")) / name


def _can_be_written(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that is there, takes new files."""
    try:
        existing = next(one for one in (folder, *folder.parents) if one.exists())
    except (OSError, StopIteration):
        return False
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


@cache
def _private(why: str) -> Path:
    """A folder that only this user can write: programs are kept in caches too, and others share the place."""
    user = 0 if os.name == "nt" else os.getuid()
    folder = Path(tempfile.gettempdir()) / f"genzoo-cache-{user}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    if not _is_private(folder, user):
        folder = folder.with_name(f"{folder.name}-{secrets.token_hex(8)}")
    logger.warning("%s: caches are kept in %s; GENZOO_CACHE=FOLDER names another place", why, folder)
    return folder


def _is_private(folder: Path, user: int) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    if os.name == "nt":
        return stat.S_ISDIR(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o022
