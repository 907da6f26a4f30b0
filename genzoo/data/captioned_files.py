"""Pictures that a table lists with their captions, as a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from genzoo.core.reading import shown
from genzoo.data.captioned import Captioned
from genzoo.data.image_decode import decode_image, read_file
from genzoo.data.indexed import Indexed
from genzoo.data.transforms import adm_centre_crop, to_tensor


class CaptionedFiles(Indexed):
    """fetch gives {"pixels": (3, s, s) float32 in [-1, 1], "captions": str}.

    rows: files with captions, which may be empty.   image_size: s, of ADM's centre crop.
    """

    augments = False
    num_classes: int | None = None
    class_names: list[str] | None = None

    def __init__(self, rows: Sequence[Captioned], *, image_size: int) -> None:
        self.rows, self.image_size = rows, image_size
        self.sample_shape: tuple[int, ...] = (3, image_size, image_size)

    @property
    def fingerprint(self) -> str:
        """Of names and captions."""
        text = "\0".join(f"{row.path.name}|{row.caption}" for row in self.rows)
        return hashlib.sha256(f"{self.image_size}|{text}".encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, index: int) -> Path:
        """The file of an item."""
        return self.rows[index].path

    def content(self, index: int) -> bytes:
        """The bytes of an item's file."""
        return read_file(self.path(index))

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One picture. Raises DataError with the file's name when it cannot be read."""
        image = decode_image(self.content(index), where=shown(self.path(index)))
        pixels = to_tensor(adm_centre_crop(image, self.image_size))
        return {"pixels": pixels, "captions": self.rows[index].caption}
