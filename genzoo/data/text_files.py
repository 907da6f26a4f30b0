"""Text that people wrote with whatever program they have: lists, tables and JSON, as an editor shows them.

UTF-8 with or without a byte-order mark, and UTF-16 with one, as spreadsheets write it. Lines end where an
editor ends them: not at U+2028, U+0085 or a form feed, which may stand within a caption.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
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
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path, what: str = "this list") -> list[str]:
    """The lines of a file without blanks around them; empty ones too, but for those at its end."""
    lines = [line.strip() for line in read_text(path, what).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_json(path: str | Path, what: str = "this file") -> Any:
    """The content of a JSON file. Raises DataError."""
    text = read_text(path, what)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not JSON", where=shown(path), why=reason(error)) from error


def read_table(path: str | Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table with a line of names: JSON lines, or cells between , ; | or tabs.

    columns: names one of which its first line holds, which tells what stands between cells. Raises DataError
    for a line with more cells than there are names, such as one with a comma that is not in quotes.
    """
    place = Path(path).expanduser()
    text = read_text(place, "the table")
    if place.suffix.lower() == ".jsonl":
        return [
            _json_row(line, place, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()
        ]
    first = text.partition("\n")[0]
    likely = sorted(
        DELIMITERS, key=lambda delimiter: (-len(_known(first, delimiter, columns)), -first.count(delimiter))
    )
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=likely[0])
        rows: list[dict[str, str]] = []
        for row in reader:
            if None in row:
                raise DataError(
                    f"line {reader.line_num} of the table has more cells than its first line",
                    where=shown(place),
                    fix=f"put text that holds {likely[0]!r} in double quotes",
                )
            rows.append({str(name).strip(): value or "" for name, value in row.items()})
    except csv.Error as error:
        raise DataError("the table cannot be read", where=shown(place), why=reason(error)) from error
    return rows


def _known(line: str, delimiter: str, columns: Sequence[str]) -> set[str]:
    cells = next(csv.reader([line], delimiter=delimiter), [])
    return {cell.strip() for cell in cells} & set(columns)


def _json_row(line: str, path: Path, number: int) -> dict[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"line {number} is not JSON", where=shown(path), why=reason(error)) from error
    if not isinstance(row, dict):
        raise DataError(
            f"line {number} is no object", where=shown(path), fix='{"file_name": ..., "caption": ...}'
        )
    return {str(name): "" if value is None else str(value) for name, value in row.items()}
