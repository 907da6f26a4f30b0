"""Pictures with captions on the disk: a table, a list beside a list, or a text beside each picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genzoo.core.errors import DataError
from genzoo.core.reading import shown
from genzoo.data.image_listing import LeftOut, walk_images
from genzoo.data.text_files import read_lines, read_table, read_text

PICTURE_COLUMNS = ("file_name", "path", "image", "image_path", "file")
CAPTION_COLUMNS = ("caption", "text")
TABLES = (".csv", ".tsv", ".jsonl")
# what a regularisation folder of the official Custom Diffusion scripts holds
IMAGES, IMAGE_LIST, CAPTIONS = "images", "images.txt", "caption.txt"


@dataclass(frozen=True)
class Captioned:
    """One picture of a collection; its caption is empty where it has none."""

    path: Path
    caption: str
    url: str = ""


def read_collection(path: str | Path) -> list[Captioned]:
    """The pictures that have a caption, see `all_captioned`. Raises DataError when there are none."""
    found = [one for one in all_captioned(path) if one.caption]
    if not found:
        raise DataError(
            "the collection holds no picture with a caption",
            where=shown(path),
            fix="metadata.csv with the columns file_name and caption, or a .txt file beside each picture",
        )
    return found


def all_captioned(path: str | Path) -> list[Captioned]:
    """A table (.csv, .tsv, .jsonl with a column for pictures and one for captions), or a folder: with such a
    table named metadata, with images.txt beside caption.txt, or with a .txt file beside each picture.

    Raises DataError when there is no such thing, or it cannot be read.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return list(_table(place))
    if not place.is_dir():
        raise DataError("there is no such collection", where=shown(place))
    if (place / IMAGE_LIST).is_file() and (place / CAPTIONS).is_file():
        return [Captioned(Path(file), caption) for file, caption in zip(*listed_pictures(place), strict=True)]
    table = table_in(place)
    return list(_sidecars(place) if table is None else _table(table))


def table_in(folder: Path) -> Path | None:
    """The table of captions in a folder, or None."""
    places = (folder / f"metadata{suffix}" for suffix in TABLES)
    return next((place for place in places if place.is_file()), None)


def listed_pictures(folder: Path) -> tuple[list[str], list[str]]:
    """Files and captions of a folder with images.txt and caption.txt. Raises DataError when they do not fit.

    A line that is empty in both is left out.
    """
    names, captions = (read_lines(folder / name) for name in (IMAGE_LIST, CAPTIONS))
    if len(names) != len(captions) or not any(names):
        raise DataError(
            f"{IMAGE_LIST} has {len(names)} lines and {CAPTIONS} {len(captions)}",
            where=shown(folder),
            fix="one picture and one caption per line",
        )
    pairs = list(zip(names, captions, strict=True))
    for number, (name, caption) in enumerate(pairs, 1):
        if bool(name) != bool(caption):
            raise DataError(
                f"line {number} of {CAPTIONS if name else IMAGE_LIST} is empty, and the other list's is not",
                where=shown(folder),
                fix="one picture and one caption per line",
            )
    kept = [pair for pair in pairs if pair[0]]
    return [str(_found(folder, name)) for name, _ in kept], [caption for _, caption in kept]


def _found(folder: Path, name: str) -> Path:
    """A listed picture: where the list says, beside the list, or in images/ when the folder was moved."""
    named = Path(name), Path(name.replace("\\", "/"))  # as it is, or written on Windows
    places = [at for one in named for at in (one, folder / one, folder / IMAGES / one.name)]
    return next((place for place in places if place.is_file()), places[0])


def _table(path: Path) -> Iterator[Captioned]:
    rows = read_table(path, (*PICTURE_COLUMNS, *CAPTION_COLUMNS))
    columns = list(rows[0]) if rows else []
    picture = next((name for name in PICTURE_COLUMNS if name in columns), None)
    caption = next((name for name in CAPTION_COLUMNS if name in columns), None)
    if picture is None or caption is None:
        raise DataError(
            "the table has no column of pictures or none of captions",
            where=shown(path),
            why=f"its columns are {', '.join(map(repr, columns)) or 'none'}",
            fix=f"name them {PICTURE_COLUMNS[0]} and {CAPTION_COLUMNS[0]}",
        )
    for row in rows:
        if row.get(picture):
            text = " ".join(row.get(caption, "").split())
            yield Captioned(_beside(path.parent, row[picture]), text, row.get("url", ""))


def _beside(folder: Path, name: str) -> Path:
    """A picture that a table names, from Windows too: with \\ between folders."""
    place, other = folder / name, folder / name.replace("\\", "/")
    return other if other != place and not place.is_file() and other.is_file() else place


def _sidecars(folder: Path) -> Iterator[Captioned]:
    for name in walk_images(folder, folder, LeftOut(), True):
        text = (folder / name).with_suffix(".txt")
        caption = read_text(text, "the caption") if text.is_file() else ""
        yield Captioned(folder / name, " ".join(caption.split()))
