"""Small data that ship with the package; NOTICE and licenses/ say where they come from and on what terms."""

from __future__ import annotations

from pathlib import Path

from genzoo.core.errors import DataError


def asset(name: str) -> Path:
    """The path of an embedded file, such as "digits.safetensors"."""
    path = Path(__file__).parent / name
    if not path.exists():
        raise DataError(f"the embedded file {name!r} is missing", where=str(path), fix="reinstall genzoo")
    return path
