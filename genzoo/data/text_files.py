"""Text that people wrote with whatever program they have: lists, tables and JSON, as an editor shows them.

UTF-8 with or without a byte-order mark, and UTF-16 with one, as spreadsheets write it. Lines end where an
editor ends them: not at U+2028, U+0085 or a form feed, which may stand within a caption.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genzoo.core.errors import DataError
from genzoo.core.reading import read_bytes, reason, shown

DELIMITERS = (",", ";", "\t", "|")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: str | Path, what: str = "this text") -> str:
    """The text of a file, its line ends as \\n.   what: for the error. Raises DataError."""
    place = Path(path).expanduser()
    data = read_bytes(place, what)
    try:
        encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
        text = data.decode(encoding)
    except UnicodeError as error:
        raise DataError(
            f"{what} is not UTF-8", where=shown(place), why=reason(error), fix="save it as UTF-8"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{what} holds NUL characters",
            where=shown(place),
            why="it may be UTF-16 without a mark, UTF-32, or no text",
            fix="save it as UTF-8",
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path, what: str = "this list") -> list[str]:
    """The lines of a file without blanks around them; empty ones too, but for those at its end."""
    lines = [line.strip() for line in read_text(path, what).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_json(path: str | Path, what: str = "this file") -> Any:
    """The content of a JSON file. Raises DataError, also for a key that an object has twice."""
    text = read_text(path, what)
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not JSON", where=shown(path), why=reason(error)) from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two values for one key json keeps the last in silence."""
    _no_name_twice([name for name, _ in pairs])
    return dict(pairs)


def _no_name_twice(names: Sequence[str]) -> None:
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} stands there twice")


def read_table(path: str | Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table with a line of names: JSON lines, or cells between , ; | or tabs.

    Names of columns are returned in lower case.   columns: names one of which its first line holds, which
    tells what stands between cells. Raises DataError for a table without rows, a name that two columns have,
    a quote that is not closed, and a line with more cells than there are names, such as one with a comma that
    is not in quotes.
    """
    place = Path(path).expanduser()
    text = read_text(place, "the table")
    if place.suffix.lower() == ".jsonl":
        lines = enumerate(text.split("\n"), 1)
        rows = [_json_row(line, place, number) for number, line in lines if line.strip()]
    else:
        try:
            rows = _csv_rows(text, columns, place)
        except DataError:
            raise
        except (csv.Error, ValueError) as error:
            fix = 'close every " that begins a cell' if "end of data" in str(error) else None
            raise DataError(
                "the table cannot be read", where=shown(place), why=reason(error), fix=fix
            ) from error
    if not rows:
        raise DataError("the table has no rows below its names", where=shown(place))
    return rows


def _csv_rows(text: str, columns: Sequence[str], place: Path) -> list[dict[str, str]]:
    """Rows of a table of cells. Raises csv.Error, ValueError and DataError."""
    told = re.match(r"sep=(.)\n", text, re.IGNORECASE)  # how Excel is told what stands between cells
    whole, text = text, (text[told.end() :] if told else text).lstrip("\n")
    above = whole.count("\n") - text.count("\n")
    first = text.partition("\n")[0]
    likely = sorted(
        DELIMITERS, key=lambda delimiter: (-len(_known(first, delimiter, columns)), -first.count(delimiter))
    )
    between = told[1] if told else likely[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=between, strict=True)
    reader.fieldnames = names = [_column(name) for name in reader.fieldnames or []]
    _no_name_twice(names)
    rows = []
    for row in reader:
        if None in row:
            raise DataError(
                f"line {above + reader.line_num} of the table has more cells than its first line",
                where=shown(place),
                fix=f"put text that holds {between!r} in double quotes",
            )
        rows.append({name: value or "" for name, value in row.items()})
    return rows


def _column(name: str) -> str:
    return name.strip().lower()


def _known(line: str, delimiter: str, columns: Sequence[str]) -> set[str]:
    cells = next(csv.reader([line], delimiter=delimiter), [])
    return {_column(cell) for cell in cells} & set(columns)


def _json_row(line: str, path: Path, number: int) -> dict[str, str]:
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"line {number} is not JSON", where=shown(path), why=reason(error)) from error
    if not isinstance(row, dict):
        raise DataError(
            f"line {number} is no object", where=shown(path), fix='{"file_name": ..., "caption": ...}'
        )
    return {_column(str(name)): "" if value is None else str(value) for name, value in row.items()}
