"""Reading safetensors files: what the disk does not give and what is damaged are told apart, by name.

The format's library says "no such file" of whatever the disk refuses, and torch, which maps the file, a
RuntimeError; neither says anything about what the file holds.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError

from genzoo.core.errors import GenzooError, WeightsError, is_out_of_memory
from genzoo.core.reading import reason, shown

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")
FAILURES = (OSError, SafetensorError, RuntimeError, ValueError, KeyError)
"""What reading such a file may raise, for readers that can do without it."""

AGAIN = "run the same command again when the disk answers and enough files may be open (ulimit -n)"


@contextlib.contextmanager
def open_tensors(
    path: Path, what: str = "the weights", *, error: type[GenzooError] = WeightsError, fix: str | None = None
) -> Iterator[Any]:
    """A safetensors file, whose tensors and metadata are read in the block. Raises `error` for any failure.

    what: it is to its user.   fix: of a damaged one.
    """
    from safetensors import safe_open

    with named(path, what, error=error, fix=fix), safe_open(path, framework="pt") as file:
        yield file


def read_tensors(
    path: Path, what: str = "the weights", *, error: type[GenzooError] = WeightsError, fix: str | None = None
) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU. Raises `error`."""
    from safetensors.torch import load_file

    with named(path, what, error=error, fix=fix):
        return load_file(path)


def look(
    path: Path,
    read: Callable[[Any], Result],
    what: str = "the weights",
    *,
    error: type[GenzooError] = WeightsError,
) -> Result | None:
    """What `read` makes of an open file's names and metadata; None of one that is damaged or another format.

    Raises `error` when the disk does not give it, which says nothing about what it is.
    """
    try:
        with open_tensors(path, what, error=error) as file:
            return read(file)
    except (RecursionError, *FAILURES) as raised:
        if of_disk(path, raised.__cause__ or raised) is not None:
            raise
        return None


@contextlib.contextmanager
def named(
    path: Path, what: str, *, error: type[GenzooError] = WeightsError, fix: str | None = None
) -> Iterator[None]:
    """Turn what a library says of a file into an `error` that names it, and says what to do."""
    try:
        yield
    except GenzooError:
        raise
    except FAILURES as raised:
        if is_out_of_memory(raised):
            raise
        why = of_disk(path, raised)
        if why is not None:
            raise error(f"{what} cannot be read just now", where=shown(path), why=why, fix=AGAIN) from raised
        fix = fix or "fetch or write it again"
        raise error(f"{what} cannot be read", where=shown(path), why=reason(raised), fix=fix) from raised


def of_disk(path: Path, raised: BaseException) -> str | None:
    """Why the disk did not give a file; None when it did, and the file is damaged or absent."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or reason(error)
    if isinstance(raised, FileNotFoundError):
        return "the disk did not give it, although it is there"
    # torch maps a file after the format's library has read its header
    mapped = isinstance(raised, RuntimeError) and str(raised).startswith(("unable to open", "unable to mmap"))
    return reason(raised) if mapped or isinstance(raised, OSError) else None
