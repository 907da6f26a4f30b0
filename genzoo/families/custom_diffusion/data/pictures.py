"""Where concept and regularisation pictures come from: a folder, the official layout, or another data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.core.reading import shown
from genzoo.core.registry import DATASETS
from genzoo.core.types import Dataset
from genzoo.data.captioned import CAPTIONS, IMAGE_LIST, IMAGES, listed_pictures
from genzoo.data.image_decode import EXTENSIONS
from genzoo.data.image_listing import LeftOut, scan_folder
from genzoo.data.picture_sets import DatasetPictures, FilePictures
from genzoo.pictures.pixels import nearest_levels, to_pil

logger = logging.getLogger(__name__)

# what a regularisation folder of the official scripts holds beside pictures and captions
URLS, SCORES = "urls.txt", "scores.json"


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures and what is in each of them."""

    pictures: FilePictures | DatasetPictures
    caption: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.pictures)

    def load(self, index: int) -> Image.Image:
        """RGB, upright. Raises DataError that names the picture."""
        return Image.fromarray(self.pictures.read(index))

    def stamp(self, index: int) -> str:
        """Differs between pictures, and after an edit."""
        return self.pictures.stamp(index)


def to_image(pixels: Tensor) -> Image.Image:
    """RGB of (c, h, w) in [-1, 1], c 1 or 3."""
    return to_pil(nearest_levels(pixels).byte().expand(3, -1, -1))


def folder_pictures(folder: Path) -> FilePictures:
    """Every picture of a folder. Raises DataError when there is none."""
    files, others = _listed(folder)
    if not files and (folder / IMAGES).is_dir():
        folder = folder / IMAGES
        files, others = _listed(folder)
    if others:
        logger.warning("%s: %d entries are no pictures and are left out: %s", folder, len(others), others[:5])
    if not files:
        raise DataError(
            "the folder holds no pictures",
            where=shown(folder),
            why=f"it holds {', '.join(others[:5])}; pictures in sub-folders are not used" if others else None,
            fix=f"put {', '.join(EXTENSIONS)} files in it",
        )
    return FilePictures(files, folder)


def under_one_prompt(folder: Path, prompt: str) -> CaptionedPictures:
    """Every picture of a folder under the same prompt. Raises DataError when there is none."""
    return CaptionedPictures(folder_pictures(folder), partial(_same_caption, prompt))


def regularisation_pictures(folder: Path, prompt: str | None) -> CaptionedPictures:
    """A folder of the official layout (images.txt beside caption.txt), or a plain folder under one prompt."""
    if not (folder / IMAGE_LIST).is_file() or not (folder / CAPTIONS).is_file():
        if prompt is None:
            raise DataError(
                f"the folder has no {IMAGE_LIST} and {CAPTIONS}, so it needs a class_prompt",
                where=shown(folder),
            )
        return under_one_prompt(folder, prompt)
    files, captions = listed_pictures(folder)
    return CaptionedPictures(FilePictures(files), captions.__getitem__)


def dataset_pictures(section: Mapping[str, Any], prompt: str | None) -> CaptionedPictures:
    """Pictures of a data section such as {"name": "emoji", "names": ["robot"]}; prompt None: their own."""
    arguments = dict(section)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise UsageError("a data section of a concept needs a name", fix=f"one of {', '.join(DATASETS)}")
    try:
        dataset: Dataset = DATASETS.get(name)(**arguments)
    except TypeError as error:
        raise UsageError(f"the data set {name} of a concept: {error}") from error

    # functions of the module, so that loader workers can be sent a copy
    caption = partial(_own_caption, dataset) if prompt is None else partial(_same_caption, prompt)
    return CaptionedPictures(DatasetPictures(dataset), caption)


def _same_caption(prompt: str, index: int) -> str:
    return prompt


def _own_caption(dataset: Dataset, index: int) -> str:
    return str(dataset.fetch(index)["captions"])


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Pictures of a folder in natural order, and what else is in it, folders too; nothing hidden."""
    left = LeftOut()
    files, folders = scan_folder(folder, folder, left, True)
    listing = {IMAGE_LIST, CAPTIONS, URLS, SCORES}
    return files, [name for name in [*left.names, *(f"{name}/" for name in folders)] if name not in listing]
