"""Train on some classes and keep the others unseen; the labels stay those of the full list."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from genzoo.core.errors import DataError, did_you_mean
from genzoo.data.text_files import read_lines

ClassList: TypeAlias = str | Path | Sequence[str]
"""Names of classes, or a text file with one a line; blank lines and those that start with # are skipped."""


def label_of(name: str, names: Sequence[str]) -> int | None:
    """The place of a class among others; None where it is not, or not clearly.

    Letters with accents are one or two characters, as the keyboard or the system that made a folder has it:
    where no name is the same, one that looks the same is.
    """
    if name in names:
        return names.index(name)
    looks = unicodedata.normalize("NFC", name)
    alike = [label for label, one in enumerate(names) if unicodedata.normalize("NFC", one) == looks]
    return alike[0] if len(alike) == 1 else None


def read_class_list(given: ClassList, known: Sequence[str], *, option: str) -> list[str]:
    """The names, all of them known. Raises DataError naming the file and the nearest known name."""
    source = f"the file {given}" if isinstance(given, (str, Path)) else f"data.{option}"
    names = _lines(Path(given), option) if isinstance(given, (str, Path)) else [str(name) for name in given]
    labels = [label_of(name, known) for name in names]
    for name, label in zip(names, labels, strict=True):
        if label is None:
            hint = did_you_mean(name, known) or f"there are {len(known)}, such as {known[0]!r}"
            raise DataError(f"there is no class {name!r}; {hint}", where=source)
    names = [known[label] for label in labels if label is not None]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(f"the class {repeated!r} is named twice", where=source)
    if not names:
        raise DataError("no class is named", where=source)
    return names


def kept_labels(
    class_names: Sequence[str] | None, include: ClassList | None, exclude: ClassList | None
) -> list[int] | None:
    """Labels of the classes to show, as positions in `class_names`; None when all are shown.

    include: show these only.   exclude: leave these out.   Raises DataError for names that are not classes.
    """
    if include is None and exclude is None:
        return None
    if class_names is None:
        raise DataError("the data have no classes, so none can be chosen", fix="leave out the class lists")
    shown = set(class_names)
    if include is not None:
        shown &= set(read_class_list(include, class_names, option="include_classes"))
    if exclude is not None:
        shown -= set(read_class_list(exclude, class_names, option="exclude_classes"))
    if not shown:
        raise DataError("exclude_classes leaves none of the classes", fix="shorten one of the lists")
    return [label for label, name in enumerate(class_names) if name in shown]


def _lines(path: Path, option: str) -> list[str]:
    try:
        lines = read_lines(path, f"the class list {str(path)!r}")
    except DataError as error:
        raise DataError(
            error.what,
            why=error.why,
            fix=f"data.{option} is a list of names, or a text file with one name a line",
        ) from error
    return [line for line in lines if line and not line.startswith("#")]
