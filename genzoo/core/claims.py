"""The one rule of all that write: what genzoo did not make is not replaced, mixed with, or written through.

A file that is there is replaced when the caller knows it for its own, or is asked to overwrite it; a folder
is used when it is empty or its own. What is read is never what is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from genzoo.core.errors import UsageError
from genzoo.core.leftovers import TEMPORARY
from genzoo.core.reading import shown

SHOWN = 3


def claim_file(
    path: str | Path, *, overwrite: bool = False, is_ours: Callable[[Path], bool] | None = None
) -> Path:
    """A path that may be written as a file. Raises UsageError for a folder, and for a file of others.

    is_ours: whether the caller made the file that is there.   overwrite: the user said that it may go.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder, and a file is to be written", fix="name a file in it")
    if not (path.exists() or path.is_symlink()) or overwrite or (is_ours is not None and is_ours(path)):
        return path
    raise UsageError(f"{path} exists already", fix="name another file, or replace it with --overwrite")


def claim_folder(path: str | Path, *, what: str, is_ours: Callable[[Path], bool] | None = None) -> Path:
    """A folder that may be filled: absent, empty, or the caller's own. Raises UsageError.

    what: is to be written, such as "a run".
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, and {what} needs a folder", fix="name another folder")
    others = strangers(path)
    if others and not (is_ours is not None and is_ours(path)):
        shown = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
        raise UsageError(
            f"{path} holds files already, and is no place for {what}",
            why=f"it holds {shown}",
            fix="name a new folder, or empty this one; nothing in it was touched",
        )
    return path


def require_utf8(path: str | Path) -> None:
    """Raise UsageError for a place of weights whose name the format's library cannot open again."""
    try:
        str(Path(path).absolute()).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{shown(path)} is no UTF-8, and files of weights below such a name could not be read again",
            fix="name another place; a link with a plain name to this one will do",
        ) from error


def strangers(folder: Path) -> list[str]:
    """Names in a folder, sorted, but for what a killed process left unfinished; [] when there is none."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(TEMPORARY))


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Raise UsageError when one of the names in a folder is a link: what is behind it is somebody's."""
    for name in names:
        path = folder / name
        if path.is_symlink():
            raise UsageError(
                f"{path} is a link, and nothing is written through it",
                why=f"it leads to {path.readlink()}",
                fix="remove the link; the folder of the run itself may be one",
            )


def require_apart(source: Path, output: Path) -> None:
    """Raise UsageError when what is written would lie among what is read."""
    read, written = source.resolve(), output.resolve()
    if written == read or (read.is_dir() and read in written.parents):
        raise UsageError(
            f"{output} is where the pictures are read from",
            why="they would be replaced, or read again with the next call",
            fix="name a folder outside",
        )


def is_name(name: str) -> bool:
    """Whether a text is one part of a path and no more.

    It may come from a file of others: `../x`, an absolute path, `.` and the like lead out of the folder.
    """
    whole = name.isprintable() and name == name.strip() and 0 < len(name.encode("utf-8", "replace")) <= 200
    return whole and not name.startswith((".", "-")) and not any(mark in name for mark in "/\\:")
