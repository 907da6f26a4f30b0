"""Files that can be sampled although no training left a run folder around them."""

from __future__ import annotations

from pathlib import Path

from genzoo.api.runs.exported_file import open_exported
from genzoo.api.runs.opened_file import OpenedFile, open_source


def open_file(path: Path) -> OpenedFile | None:
    """What `export` wrote, or what the first of SOURCES that knows the path makes of it; None for others."""
    return open_exported(path) or open_source(path)
