"""Where files are kept that any run may need again and anybody may delete."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """$XDG_CACHE_HOME, else ~/.cache: where other programs keep theirs too."""
    xdg = os.environ.get("XDG_CACHE_HOME")
    return Path(xdg) if xdg else Path.home() / ".cache"


def cache_folder(name: str) -> Path:
    """The folder `name` in $GENZOO_CACHE, else in genzoo's part of the user's cache; it need not exist."""
    explicit = os.environ.get("GENZOO_CACHE")
    return (Path(explicit) if explicit else user_cache() / "genzoo") / name
