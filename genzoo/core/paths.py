"""Paths that users name: whether anything is there, and what may have been meant."""

from __future__ import annotations

from pathlib import Path

from genzoo.core.errors import GenzooError, UsageError, nearest


def exists(path: str | Path) -> bool:
    """Whether anything is there; names that a file system cannot hold, or does not show us, are not."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL inside, no permission, an unknown ~user
        return False


def require_path(
    path: str | Path, what: str, *, fix: str, error: type[GenzooError] = UsageError, also: str = "runs"
) -> None:
    """Raise an error with the nearest names when nothing is there. Needs nothing that is slow to import.

    what: it was taken for, such as "a run folder".   also: a folder of the current one where such things lie.
    """
    if exists(path):
        return
    close = _near(Path(path), Path(also))
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise error(f"{str(path)[:200]} is not {what}", why="nothing is there", fix=hint + fix)


def named(path: str | Path) -> Path:
    """The path, or the place that it stands for where it is no name itself (`.`, `..`)."""
    path = Path(path)
    return path if path.name not in ("", "..") else path.resolve()


def beside(path: str | Path, suffix: str) -> Path:
    """The path of that name and a suffix. Raises UsageError for a root, which has nothing beside it."""
    place = named(path)
    if not place.name:
        raise UsageError(f"nothing can be written beside {path}", fix="name the place: --output PLACE")
    return place.with_name(f"{place.name}{suffix}")


def _near(path: Path, also: Path) -> list[str]:
    """Paths of like names beside the one that is missing, and in the folder `also`."""
    found = []
    for folder in dict.fromkeys((path.parent, also)):
        try:
            names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        except (OSError, ValueError):
            continue
        found += [str(folder / name) for name in nearest(path.name, names, limit=2)]
    return found[:3]
