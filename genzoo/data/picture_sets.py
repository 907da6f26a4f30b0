"""Numbered pictures wherever they lie, in files, arrays or a data set, read by the reader of training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import KnowsPictures
from genzoo.core.errors import DataError
from genzoo.core.reading import shown
from genzoo.data.array_files import Array, array_names, check_levels, read_array
from genzoo.data.image_decode import EXTENSIONS, changes_of, load_image, read_file
from genzoo.data.image_listing import LeftOut, Names, walk_images
from genzoo.data.inspection import item_name
from genzoo.data.natural_order import natural
from genzoo.data.own_outputs import is_overview
from genzoo.data.readable import Readable
from genzoo.pictures.pixels import to_uint8

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset

TAKE_OUT = "mend it, or take it out of the folder"
TOLERATE = "mend or remove it; train.max_bad=1 leaves so many out"
TEXTS = (
    ".json",
    ".jsonl",
    ".txt",
    ".csv",
    ".tsv",
    ".html",
    ".md",
    ".yaml",
    ".npz",
)  # such lie beside pictures


class PictureSet(Protocol):
    """Numbered pictures, or clips. notes: what whoever judges them must know, such as what was left out."""

    @property
    def notes(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def read(self, index: int) -> Array:
        """RGB, uint8 0..255: (h, w, 3), of a clip (f, h, w, 3)."""

    def name(self, index: int) -> str:
        """For messages: printable, whatever the file is called."""

    def content(self, index: int) -> bytes:
        """The same for the same picture at the same place, on any machine; another after an edit."""


PictureSource: TypeAlias = "str | Path | Array | Tensor | PictureSet"


def content_hash(pictures: PictureSet) -> str:
    """Of all pictures in their order, in hex."""
    digest = hashlib.sha256()
    for index in range(len(pictures)):
        digest.update(pictures.content(index))
    return digest.hexdigest()


def looked_at(pictures: PictureSet) -> tuple[str, Counter[str]]:
    """`content_hash`, and how many files were changed by reading, by what was done to them."""
    digest, changed = hashlib.sha256(), Counter[str]()
    for index in range(len(pictures)):
        source, place = pictures, index
        while isinstance(source, Subset):
            place = source.indices[place]
            source = source.pictures
        if isinstance(source, FilePictures):
            data = read_file(source.path(place))
            changed.update(changes_of(data))
            digest.update(source.content_of(place, data))
        else:
            digest.update(source.content(place))
    return digest.hexdigest(), changed


@dataclass(frozen=True)
class FilePictures:
    """Files, each a picture.   files: relative to root, or absolute.   fix: of one that cannot be read."""

    files: Sequence[str]
    root: Path = field(default_factory=Path)
    notes: Sequence[str] = ()
    fix: str | None = None

    @classmethod
    def below(cls, root: Path) -> FilePictures:
        """Every picture below a folder in natural order, links followed; what else lies there is noted."""
        left = LeftOut()
        found = list(walk_images(root, root, left, True))
        files = [name for name in found if not is_overview(root / name)]
        notes = left_out_notes(left)
        if not files:
            raise DataError(
                f"there is no picture below {shown(root)}",
                why="; ".join(notes) or None,
                fix=f"supported: {', '.join(EXTENSIONS)}",
            )
        return cls(Names(files), root, notes, TAKE_OUT)

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return self.root / self.files[index]

    def name(self, index: int) -> str:
        return shown(PurePath(self.files[index]).as_posix())

    def read(self, index: int) -> Array:
        try:
            return np.asarray(load_image(self.path(index)))
        except DataError as error:
            raise with_fix(error, self.fix) from error

    def content(self, index: int) -> bytes:
        return self.content_of(index, read_file(self.path(index)))

    def content_of(self, index: int, data: bytes) -> bytes:
        """The same from the file's bytes."""
        return f"{self.name(index)}\0".encode() + hashlib.sha256(data).digest()

    def stamp(self, index: int) -> str:
        """Name, size and time of change: differs after an edit, without reading the file."""
        path = self.path(index)
        try:
            status = path.stat()
        except OSError:
            return f"{path.name}|missing"
        return f"{path.name}|{status.st_size}|{status.st_mtime_ns}"


class ArrayPictures:
    """uint8 pictures (n, h, w, c) in memory, c = 1 or 3."""

    notes: Sequence[str] = ()

    def __init__(self, array: Array, source: str = "the array") -> None:
        self.array, self.source = check_levels(array, source, dims=4), source

    def __len__(self) -> int:
        return len(self.array)

    def name(self, index: int) -> str:
        return f"{self.source}[{index}]"

    def read(self, index: int) -> Array:
        return three_channels(self.array[index])

    def content(self, index: int) -> bytes:
        row = self.array[index]
        return hashlib.sha256(str(row.shape).encode() + row.tobytes()).digest()


class DatasetPictures:
    """The pictures of a data set, or its clips, as they come without a generator: not augmented."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.notes: Sequence[str] = dataset.notes if isinstance(dataset, Readable) else ()
        plain = able(dataset, KnowsPictures)
        self._fingerprint = dataset.fingerprint if plain is None else plain.pictures_fingerprint

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return item_name(self.dataset, index)

    def read(self, index: int) -> Array:
        try:
            return three_channels(to_levels(self.dataset.fetch(index)["pixels"]))
        except DataError as error:
            raise with_fix(error, TOLERATE) from error

    def content(self, index: int) -> bytes:
        return self.stamp(index).encode() + b"\0"

    def stamp(self, index: int) -> str:
        """The data set's fingerprint, flips aside, and the index."""
        return f"{self._fingerprint}|{index}"


@dataclass(frozen=True)
class Subset:
    """Some pictures of another set, in this order."""

    pictures: PictureSet
    indices: Sequence[int]

    @property
    def notes(self) -> Sequence[str]:
        return self.pictures.notes

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.pictures.name(self.indices[index])

    def read(self, index: int) -> Array:
        return self.pictures.read(self.indices[index])

    def content(self, index: int) -> bytes:
        return self.pictures.content(self.indices[index])


def open_pictures(source: PictureSource) -> PictureSet:
    """A folder, .npz (arr_0), .npy, uint8 (n, h, w, c), tensor (n, c, h, w) in [-1, 1], or a PictureSet."""
    if isinstance(source, np.ndarray):
        return ArrayPictures(source)
    if isinstance(source, torch.Tensor):
        return ArrayPictures(to_levels(source))
    if not isinstance(source, str | Path):
        return source
    path = Path(source).expanduser()
    if path.is_dir():
        return FilePictures.below(path)
    if {"mu", "sigma"} <= set(names := array_names(path)) and "arr_0" not in names:
        raise DataError(
            f"{shown(path)} holds statistics (mu, sigma), not pictures", fix="give it as --reference"
        )
    return ArrayPictures(read_array(path), f"{shown(path)}: arr_0")


def left_out_notes(left: LeftOut) -> list[str]:
    """What a result says of files that might have been meant to be judged."""
    other = [name for name in sorted(left.other, key=natural) if not name.lower().endswith(TEXTS)]
    if not other:
        return []
    some = ", ".join(shown(name) for name in other[:3])
    return [f"{len(other)} file(s) in formats that are not read were left out, such as {some}"]


def with_fix(error: DataError, fix: str | None) -> DataError:
    """The same error with a way on, where it names none."""
    return DataError(error.what, where=error.where, why=error.why, fix=error.fix or fix)


def to_levels(pixels: Tensor) -> Array:
    """Samples (..., c, h, w) in [-1, 1] as uint8 (..., h, w, c)."""
    return to_uint8(pixels.detach()).cpu().movedim(-3, -1).numpy()


def three_channels(picture: Array) -> Array:
    """Grey as three equal channels."""
    return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture
