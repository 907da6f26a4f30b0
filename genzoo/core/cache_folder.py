"""Where files are kept that any run may need again and anybody may delete."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` in $GENZOO_CACHE, else in genzoo's part of the user's cache; it need not exist."""
    explicit, xdg = os.environ.get("GENZOO_CACHE"), os.environ.get("XDG_CACHE_HOME")
    base = Path(explicit) if explicit else (Path(xdg) if xdg else Path.home() / ".cache") / "genzoo"
    return base / name
