"""Where concept and regularisation pictures come from: a folder, the official layout, or another data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.core.registry import DATASETS
from genzoo.core.types import Dataset
from genzoo.data.image_decode import EXTENSIONS, load_image, shown
from genzoo.data.image_listing import natural
from genzoo.pictures.pixels import nearest_levels, to_pil

logger = logging.getLogger(__name__)

# what a regularisation folder of the official scripts holds
IMAGES, IMAGE_LIST, CAPTIONS, URLS = "images", "images.txt", "caption.txt", "urls.txt"


class Pictures(Protocol):
    """Pictures with captions. Loading one raises DataError that names it."""

    def __len__(self) -> int: ...
    def load(self, index: int) -> Image.Image: ...
    def caption(self, index: int) -> str: ...
    def stamp(self, index: int) -> str:
        """Differs between pictures, and after an edit."""


@dataclass(frozen=True)
class FilePictures:
    """Files, each with its caption."""

    files: Sequence[Path]
    captions: Sequence[str]

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Image.Image:
        """RGB, upright. Raises DataError."""
        return load_image(self.files[index])

    def caption(self, index: int) -> str:
        """What is in the picture."""
        return self.captions[index]

    def stamp(self, index: int) -> str:
        """Name, size and time of change."""
        try:
            status = self.files[index].stat()
        except OSError:
            return f"{self.files[index].name}|missing"
        return f"{self.files[index].name}|{status.st_size}|{status.st_mtime_ns}"


@dataclass(frozen=True)
class DatasetPictures:
    """Items of a data set that has "pixels"; their own captions, or one for all."""

    dataset: Dataset
    prompt: str | None

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int) -> Image.Image:
        """RGB."""
        return to_image(self.dataset.fetch(index)["pixels"])

    def caption(self, index: int) -> str:
        """The prompt, or the item's own caption."""
        return self.prompt if self.prompt is not None else str(self.dataset.fetch(index)["captions"])

    def stamp(self, index: int) -> str:
        """The data set's fingerprint and the index."""
        return f"{self.dataset.fingerprint}|{index}"


def to_image(pixels: Tensor) -> Image.Image:
    """RGB of (c, h, w) in [-1, 1], c 1 or 3."""
    return to_pil(nearest_levels(pixels).byte().expand(3, -1, -1))


def folder_pictures(folder: Path, prompt: str) -> FilePictures:
    """Every picture of a folder under one prompt. Raises DataError when there is none."""
    files, others = _listed(folder)
    if not files and (folder / IMAGES).is_dir():
        files, others = _listed(folder / IMAGES)
    if others:
        logger.warning("%s: %d file(s) are no pictures and are left out: %s", folder, len(others), others[:5])
    if not files:
        raise DataError(
            "the folder holds no pictures",
            where=shown(folder),
            fix=f"put {', '.join(EXTENSIONS)} files in it",
        )
    return FilePictures(files, [prompt] * len(files))


def regularisation_pictures(folder: Path, prompt: str | None) -> FilePictures:
    """A folder of the official layout (images.txt beside caption.txt), or a plain folder under one prompt."""
    if not (folder / IMAGE_LIST).is_file() or not (folder / CAPTIONS).is_file():
        if prompt is None:
            raise DataError(
                f"the folder has no {IMAGE_LIST} and {CAPTIONS}, so it needs a class_prompt",
                where=shown(folder),
            )
        return folder_pictures(folder, prompt)
    names, captions = (_lines(folder / name) for name in (IMAGE_LIST, CAPTIONS))
    if len(names) != len(captions) or not names:
        raise DataError(
            f"{IMAGE_LIST} has {len(names)} lines and {CAPTIONS} {len(captions)}",
            where=shown(folder),
            fix="one picture and one caption per line",
        )
    return FilePictures([_found(folder, name) for name in names], captions)


def dataset_pictures(section: Mapping[str, Any], prompt: str | None) -> DatasetPictures:
    """Pictures of a data section such as {"name": "emoji", "names": ["robot"]}."""
    arguments = dict(section)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise UsageError("a data section of a concept needs a name", fix=f"one of {', '.join(DATASETS)}")
    try:
        dataset: Dataset = DATASETS.get(name)(**arguments)
    except TypeError as error:
        raise UsageError(f"the data set {name} of a concept: {error}") from error
    return DatasetPictures(dataset, prompt)


def _listed(folder: Path) -> tuple[list[Path], list[str]]:
    """Pictures of a folder in natural order, and the names of other files; hidden files do not count."""
    try:
        names = sorted((entry.name for entry in os.scandir(folder) if entry.is_file()), key=natural)
    except OSError as error:
        raise DataError("this folder cannot be read", where=shown(folder), why=str(error.strerror)) from error
    seen = [name for name in names if not name.startswith(".")]
    pictures = [name for name in seen if name.lower().endswith(EXTENSIONS)]
    listing = {IMAGE_LIST, CAPTIONS, URLS}
    return [folder / name for name in pictures], [n for n in seen if n not in pictures and n not in listing]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("this list cannot be read", where=shown(path), why=str(error)) from error
    return [line.strip() for line in lines if line.strip()]


def _found(folder: Path, name: str) -> Path:
    """A listed picture: where the list says, beside the list, or in images/ when the folder was moved."""
    places = (Path(name), folder / name, folder / IMAGES / Path(name).name)
    return next((place for place in places if place.is_file()), places[0])
