"""A collection of captioned pictures on the disk, and those of it whose captions mean what is asked for."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.files import write_file
from genzoo.data.image_decode import decode_image, read_file, shown
from genzoo.data.image_listing import LeftOut, walk_images
from genzoo.families.custom_diffusion.data.pictures import CAPTIONS, IMAGE_LIST, listed_pictures
from genzoo.pretrained.clip import Clip

PICTURE_COLUMNS = ("file_name", "path", "image", "image_path", "file")
CAPTION_COLUMNS = ("caption", "text")
TABLES = (".csv", ".tsv", ".jsonl")
# bits of 256 in which two thumbnails of the same picture may differ
NEARLY_EQUAL = 8


@dataclass(frozen=True)
class Captioned:
    """One picture of a collection."""

    path: Path
    caption: str
    url: str = ""


@dataclass
class Selection:
    """chosen: (picture, similarity), best first.   Counts say why others were left out."""

    chosen: list[tuple[Captioned, float]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    num_similar: int = 0
    num_unreadable: int = 0
    num_small: int = 0
    num_repeated: int = 0


def read_collection(path: str | Path) -> list[Captioned]:
    """A table (.csv, .tsv, .jsonl with a column for pictures and one for captions), or a folder: with such a
    table named metadata, in the official layout, or with a .txt file beside each picture. Raises DataError.
    """
    place = Path(path).expanduser()
    if place.is_file():
        found = list(_table(place))
    elif not place.is_dir():
        raise DataError("there is no such collection", where=shown(place))
    elif (place / IMAGE_LIST).is_file() and (place / CAPTIONS).is_file():
        pairs = zip(*listed_pictures(place), strict=True)
        found = [Captioned(Path(file), caption) for file, caption in pairs]
    else:
        tables = [place / f"metadata{suffix}" for suffix in TABLES if (place / f"metadata{suffix}").is_file()]
        found = list(_table(tables[0])) if tables else list(_sidecars(place))
    if not found:
        raise DataError(
            "the collection holds no picture with a caption",
            where=shown(place),
            fix="metadata.csv with the columns file_name and caption, or a .txt file beside each picture",
        )
    return found


def similarities(
    encoder: Clip, captions: Sequence[str], queries: Sequence[str], *, cache: Path | None = None
) -> Tensor:
    """(n,): the cosine of each caption with the nearest query.

    cache: a folder that keeps the captions' features (.npy, float16) for other queries.
    """
    rows = encoder.encode(captions) if cache is None else _remembered(encoder, captions, cache)
    return (rows @ encoder.encode(queries).T).amax(dim=1)


def _remembered(encoder: Clip, captions: Sequence[str], cache: Path) -> Tensor:
    """The captions' features from the cache, made and kept there first if need be."""
    digest = hashlib.sha256("\0".join(captions).encode()).hexdigest()[:16]
    file = cache / f"captions-{digest}-{encoder.tag}.npy"
    kept = _kept(file, len(captions))
    if kept is not None:
        return kept
    rows = encoder.encode(captions).half()
    write_file(file, lambda part: np.save(part, rows.numpy()))
    return rows.float()  # rounded: the same numbers as those that are kept


def select(
    pictures: Sequence[Captioned],
    scores: Tensor,
    *,
    num: int,
    threshold: float | None,
    min_size: int = 256,
) -> Selection:
    """The `num` best pictures above a similarity, readable, large enough, and each only once."""
    found = Selection()
    seen_bytes: set[str] = set()
    thumbnails: list[Tensor] = []
    if threshold is not None:
        found.num_similar = int((scores > threshold).sum())
    for index in scores.argsort(descending=True, stable=True).tolist():
        score = float(scores[index])
        if len(found.chosen) == num or (threshold is not None and score <= threshold):
            break
        try:
            content = read_file(pictures[index].path)
            image = decode_image(content, where=shown(pictures[index].path))
        except DataError:
            found.num_unreadable += 1
            continue
        if min(image.size) < min_size:
            found.num_small += 1
            continue
        digest, thumbnail = hashlib.sha256(content).hexdigest(), _thumbnail(image)
        if digest in seen_bytes or any(int((thumbnail != t).sum()) <= NEARLY_EQUAL for t in thumbnails):
            found.num_repeated += 1
            continue
        seen_bytes.add(digest)
        thumbnails.append(thumbnail)
        found.chosen.append((pictures[index], score))
        found.contents.append(content)
    return found


def _thumbnail(image: Image.Image) -> Tensor:
    """(256,) bool: where a 16 x 16 picture is brighter than its mean; survives resizing and compression."""
    small = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32)
    return torch.from_numpy(small > small.mean()).flatten()


def _table(path: Path) -> Iterator[Captioned]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".jsonl":
                rows: list[Any] = [json.loads(line) for line in file if line.strip()]
            else:
                rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise DataError("the table cannot be read", where=shown(path), why=str(error)[:200]) from error
    columns = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    picture = next((name for name in PICTURE_COLUMNS if name in columns), None)
    caption = next((name for name in CAPTION_COLUMNS if name in columns), None)
    if picture is None or caption is None:
        raise DataError(
            "the table has no column of pictures or none of captions",
            where=shown(path),
            why=f"its columns are {', '.join(columns) or 'none'}",
            fix=f"name them {PICTURE_COLUMNS[0]} and {CAPTION_COLUMNS[0]}",
        )
    for row in rows:
        if row.get(picture) and row.get(caption):
            yield Captioned(path.parent / str(row[picture]), str(row[caption]), str(row.get("url") or ""))


def _sidecars(folder: Path) -> Iterator[Captioned]:
    for name in walk_images(folder, folder, LeftOut(), True):
        path = folder / name
        text = path.with_suffix(".txt")
        if text.is_file():
            caption = " ".join(text.read_text(encoding="utf-8", errors="replace").split())
            if caption:
                yield Captioned(path, caption)


def _kept(file: Path, num: int) -> Tensor | None:
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return torch.from_numpy(rows).float() if rows.ndim == 2 and len(rows) == num else None
