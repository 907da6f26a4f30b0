"""Reading small files of others: regular ones of limited size, and whatever is wrong is one clear error.

A pipe never ends and a device never stops, so neither is opened; of a file that says that it is empty and
goes on for ever, as some below /proc do, no more than the limit is read.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from genzoo.core.errors import DataError, GenzooError

MAX_TEXT = 256 * 1024**2  # captions of millions of pictures
MAX_JSON = 64 * 1024**2


def read_bytes(
    path: str | Path,
    what: str = "this file",
    *,
    max_bytes: int = MAX_TEXT,
    error: type[GenzooError] = DataError,
    fix: str | None = None,
) -> bytes:
    """The bytes of a regular file.   what: it is to its user, such as "the class list".

    Raises `error`, saying why, when there is none, when it is a pipe or a device, and when it is too large.
    """
    path = Path(path)
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
        content = _at_most(path, max_bytes + 1) if is_regular else b""
    except (OSError, ValueError, RuntimeError) as raised:  # ValueError: NUL in a name; RuntimeError: loops
        why = (raised.strerror if isinstance(raised, OSError) else None) or reason(raised)
        raise error(f"{what} cannot be read", where=shown(path), why=why, fix=fix) from raised
    if not is_regular:
        raise error(f"{what} cannot be read", where=shown(path), why="it is not a regular file", fix=fix)
    if len(content) > max_bytes:
        why = f"it has more than {max_bytes:,} bytes"
        raise error(f"{what} cannot be read", where=shown(path), why=why, fix=fix)
    return content


def read_text(
    path: str | Path,
    what: str = "this file",
    *,
    max_bytes: int = MAX_TEXT,
    error: type[GenzooError] = DataError,
    fix: str | None = None,
) -> str:
    """The text of a file in UTF-8, with or without a mark at its beginning. Raises `error`."""
    content = read_bytes(path, what, max_bytes=max_bytes, error=error, fix=fix)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as raised:
        why = f"byte {raised.start} is no UTF-8"
        raise error(f"{what} cannot be read", where=shown(path), why=why, fix=fix) from raised


def read_json(
    path: str | Path,
    what: str = "this file",
    *,
    max_bytes: int = MAX_JSON,
    error: type[GenzooError] = DataError,
    fix: str | None = None,
) -> Any:
    """What a JSON file holds. Raises `error`, also for one that is empty, cut short or nested too deep."""
    return parse_json(
        read_text(path, what, max_bytes=max_bytes, error=error, fix=fix),
        what,
        where=shown(path),
        error=error,
        fix=fix,
    )


def parse_json(
    text: str,
    what: str,
    *,
    where: str,
    error: type[GenzooError] = DataError,
    fix: str | None = None,
) -> Any:
    """What a JSON text of others holds. Raises `error`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as raised:
        why = reason(raised) if text.strip() else "it is empty"
        raise error(f"{what} is not JSON", where=where, why=why, fix=fix) from raised


def read_record(path: str | Path) -> dict[str, Any]:
    """What a JSON file of ours holds; {} for one that is absent, damaged, or no mapping.

    For files that can be made again, or do without: a result, a report, a note beside pictures.
    """
    try:
        found = read_json(path)
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}


def shown(path: str | os.PathLike[str]) -> str:
    """A path that is safe to print: undecodable bytes and control characters are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: BaseException) -> str:
    """What an exception says, in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _at_most(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)
