"""A folder of samples as one npz file, which ADM's evaluator and `genzoo evaluate` read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genzoo.core.claims import is_name
from genzoo.core.errors import DataError
from genzoo.core.reading import read_json
from genzoo.data.picture_npz import npz_name, write_picture_npz
from genzoo.data.picture_sets import FilePictures

LABELS = "class_labels"


def pack_samples(folder: Path, num: int | None = None) -> Path | None:
    """The npz of the first `num` samples of a folder, or of all; None while some are still being made.

    The folder's samples.json says which files they are and, where there are classes, of which class.
    """
    rows: list[dict[str, Any]] = read_json(folder / "samples.json", "samples.json")["samples"]
    rows = rows if num is None else rows[:num]
    strange = [row["file"] for row in rows if not is_name(str(row["file"]))]
    if strange:
        raise DataError(
            f"samples.json names {strange[0]!r}, which is no file of its folder", where=str(folder)
        )
    if not all((folder / row["file"]).is_file() for row in rows):
        if any((folder / row["file"]).is_dir() for row in rows):
            raise DataError("an npz of samples holds pictures, and these are clips", fix="leave --npz out")
        return None
    pictures = FilePictures([row["file"] for row in rows], folder)
    labels = [row[LABELS] for row in rows] if all(LABELS in row for row in rows) else None
    height, width = pictures.read(0).shape[:2]
    return write_picture_npz(folder / npz_name(len(rows), height, width), pictures, labels)
