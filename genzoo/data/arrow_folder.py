"""Pictures in a folder of Hugging Face `datasets` (Arrow, `save_to_disk`), read in any order, offline."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genzoo.core.errors import DataError, did_you_mean
from genzoo.core.optional import require
from genzoo.core.reading import read_text, shown
from genzoo.core.sizes import Size, sides
from genzoo.core.types import Dataset
from genzoo.data.cached_controls import CachedControls
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.image_decode import MAX_PIXELS
from genzoo.data.indexed import Indexed
from genzoo.data.picture_view import CENTRAL, RANDOM, PictureView, SeesPictures

OFFLINE = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
TEXTS = ("string", "large_string")


def hf_folder(
    root: str | Path,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    image_size: Size = 256,
    channels: int = 3,
    horizontal_flip: bool = True,
    crop: str = "adm",
    captions: bool = False,
    max_pixels: int = MAX_PIXELS,
    latent_cache: str | Path | None = None,
    latent_dtype: str = "float16",
    controls: str | Path | None = None,
) -> Dataset:
    """The pictures of a folder that `datasets` saved; or their latents, as with `image_folder`.

    split: of a folder with several, such as train.   image_column, label_column, caption_column: found by
    their types where there is one each; label_column "none" leaves the classes out.
    """
    if crop == RANDOM and (latent_cache is not None or controls is not None):
        raise DataError(
            "stored latents and controls are of central views, and data.crop=official cuts at random",
            fix=f"set data.crop={CENTRAL}, or leave out latent_cache and controls",
        )
    view = PictureView(sides(image_size), channels, horizontal_flip, crop, max_pixels)
    columns = {"image": image_column, "label": label_column, "caption": caption_column}
    images = ArrowFolder(root, view, split=split, columns=columns, captions=captions)
    source = images if latent_cache is None else CachedLatents(images, latent_cache, dtype=latent_dtype)
    return source if controls is None else CachedControls(source, controls)


class ArrowFolder(Indexed, SeesPictures):
    """fetch gives {"pixels": (channels, h, w) float32 in [-1, 1]}, with classes {"class_labels": int64 ()},
    and with captions {"captions": str}. Only the columns of pictures, classes and captions are read.

    Rows are mapped from the files, not taken into memory. Needs the extra `datasets`.
    """

    def __init__(
        self,
        root: str | Path,
        view: PictureView,
        *,
        split: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        captions: bool = False,
    ) -> None:
        self.view, self.with_captions = view, captions
        self.horizontal_flip = view.horizontal_flip
        self.sample_shape: tuple[int, ...] = (view.channels, *view.size)
        self.root = split_folder(Path(root).expanduser(), split)
        table = _load(self.root)
        chosen = dict(columns or {})
        self._image = _column(table, "image", chosen.get("image"), self.root)
        caption = _column(table, "caption", chosen.get("caption"), self.root) if captions else None
        label = _label_column(table, chosen.get("label"), self.root)
        kept = [name for name in (self._image, caption, label) if name is not None]
        self._rows = table.select_columns(kept)
        self._caption, self._label = caption, label
        self.labels, self.class_names = _classes(self._rows, label, self.root)
        self.num_classes: int | None = None if self.class_names is None else len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with names and sizes of the files, columns, classes and settings; not with the place."""
        columns = (self._image, self._label, self._caption)
        facts = f"{self.transform}|{self.horizontal_flip}|{self.class_names}|{columns}|{len(self)}"
        digest = hashlib.sha256(facts.encode())
        for name, size in _files(self.root):
            digest.update(f"{name}|{size}\0".encode())
        return digest.hexdigest()[:32]

    def __len__(self) -> int:
        return len(self._rows)

    def content(self, index: int) -> bytes:
        """The bytes of an item's picture. Raises DataError where they are not in the row."""
        picture = self._row(index, self._image)
        data = None if picture is None else picture["bytes"]
        if not isinstance(data, bytes):
            raise DataError(
                "the picture is not in the row, but in another file",
                where=self.name(index),
                fix="save the pictures themselves: `datasets` embeds them in `save_to_disk`",
            )
        return data

    def stamp(self, index: int) -> str:
        """Row and files with their times: differs after an edit, without reading the picture."""
        return f"{index}|{self._stamp}"

    def name(self, index: int) -> str:
        """The item, for messages."""
        return f"{shown(self.root)}: row {index}"

    def annotations(self, index: int) -> dict[str, Any]:
        """{"class_labels": int64 (), "captions": str}, as far as there are any."""
        found: dict[str, Any] = {}
        if self.labels is not None:
            found["class_labels"] = self.labels[index].clone()
        if self._caption is not None:
            caption = self._row(index, self._caption)
            if caption is None:
                raise DataError("a row has no caption", where=self.name(index), fix="set data.captions=false")
            found["captions"] = caption
        return found

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One picture. Raises DataError with its row when it cannot be read."""
        pixels = self.view.pixels(self.content(index), generator, where=self.name(index))
        return {"pixels": pixels} | self.annotations(index)

    @cached_property
    def _stamp(self) -> str:
        times = [os.stat(self.root / name).st_mtime_ns for name, _ in _files(self.root)]
        return hashlib.sha256(f"{_files(self.root)}|{times}".encode()).hexdigest()

    def _row(self, index: int, column: str) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._rows.data.column(column)[index].as_py()  # as it is stored: nothing is decoded


def split_folder(root: Path, split: str | None) -> Path:
    """The folder of one data set: root, or that of a split. Raises DataError, naming the splits there are."""
    table = root / "dataset_dict.json"
    if not table.is_file():
        if not (root / "state.json").is_file():
            raise DataError(
                "this is no folder that `datasets` saved", where=shown(root), fix="it has a state.json"
            )
        if split is not None:
            raise DataError("data.split was given, but the folder has one data set", where=shown(root))
        return root
    splits = json.loads(read_text(table, "the list of splits")).get("splits")
    names = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
    if split not in names:
        hint = did_you_mean(split, names) if split else None
        raise DataError(
            f"there is no split {split!r}" if split else "the folder has several splits",
            where=shown(root),
            fix=hint or f"set data.split to one of {', '.join(names)}",
        )
    return root / str(split)


def _load(folder: Path) -> Any:
    _files(folder)  # what the table names lies inside
    before = {name: os.environ.get(name) for name in OFFLINE}
    os.environ.update(dict.fromkeys(OFFLINE, "1"))
    try:
        table = require("datasets", extra="datasets").load_from_disk(os.fspath(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("the data cannot be read", where=shown(folder), why=str(error)) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if table._indices is not None:
        raise DataError(
            "the rows are a selection of others", where=shown(folder), fix="save `flatten_indices()` of them"
        )
    return table


def _files(folder: Path) -> list[tuple[str, int]]:
    """Name and size of each Arrow file. Raises DataError for one that is outside, or is missing."""
    try:
        state = json.loads(read_text(folder / "state.json", "the list of files"))
        names = [one["filename"] for one in state["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError("state.json does not list the files", where=shown(folder), why=str(error)) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise DataError(f"state.json names a file outside: {name!r}", where=shown(folder))
        if not (folder / name).is_file():
            raise DataError(f"the file {name} is missing", where=shown(folder))
    return [(name, (folder / name).stat().st_size) for name in names]


def _column(table: Any, what: str, wanted: str | None, folder: Path) -> str:
    fitting = [name for name, feature in table.features.items() if _is(what, feature)]
    if wanted is not None and wanted in fitting:
        return wanted
    if wanted is None and len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in table.features.items())
    raise DataError(
        f"no column {wanted!r} of {what}s" if wanted else f"{len(fitting)} columns could be the {what}s",
        where=shown(folder),
        why=f"its columns are {columns}",
        fix=f"set data.{what}_column" + (f" to one of {', '.join(fitting)}" if fitting else ""),
    )


def _label_column(table: Any, wanted: str | None, folder: Path) -> str | None:
    """The column of classes: the one that is asked for, else the one whose values have names."""
    if wanted == "none":
        return None
    named = [name for name, kind in table.features.items() if type(kind).__name__ == "ClassLabel"]
    if wanted is None and not named:
        return None
    return _column(table, "label", wanted or (named[0] if len(named) == 1 else None), folder)


def _is(what: str, feature: Any) -> bool:
    kind = type(feature).__name__
    if what == "image":
        return kind == "Image"
    if what == "label":
        return kind == "ClassLabel" or (kind == "Value" and feature.dtype in INTEGERS)
    return kind == "Value" and feature.dtype in TEXTS


def _classes(rows: Any, label: str | None, folder: Path) -> tuple[torch.Tensor | None, list[str] | None]:
    if label is None:
        return None, None
    column = rows.data.column(label)
    if column.null_count:
        raise DataError(f"{column.null_count} rows have no class", where=shown(folder))
    values = np.asarray(column.to_numpy()).astype(np.int64)
    feature = rows.features[label]
    names: Sequence[str] | None = feature.names if type(feature).__name__ == "ClassLabel" else None
    if len(values) and (values.min() < 0 or (names is not None and values.max() >= len(names))):
        raise DataError(
            f"classes span [{values.min()}, {values.max()}]",
            where=shown(folder),
            fix="set data.label_column=none, or give every row its class",
        )
    count = int(values.max()) + 1 if len(values) else 0
    return torch.from_numpy(values), list(names) if names is not None else [str(n) for n in range(count)]
