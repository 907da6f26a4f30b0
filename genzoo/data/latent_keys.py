"""What a cached latent depends on: the keys of the cache, and the stamps that save reading every file."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import torch

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import (
    Annotates,
    Flips,
    KnowsContent,
    KnowsPath,
    KnowsStamp,
    Moves,
    NamesTransform,
    StoresShape,
    augments,
)
from genzoo.core.errors import DataError
from genzoo.core.files import as_safetensors, write_file
from genzoo.core.reading import reason
from genzoo.core.tensor_files import read_tensors
from genzoo.core.types import Dataset, LatentCodec
from genzoo.data.latent_store import digest

logger = logging.getLogger(__name__)

STAMPS = re.compile(r"stamps-[0-9a-f]{32}\.safetensors")


class Keyring:
    """The keys of one data set under one codec and one set of settings."""

    def __init__(self, images: Dataset, codec: LatentCodec, dtype: str, *, flips: bool | None = None) -> None:
        self.images = images
        named, stored = able(images, NamesTransform), able(images, StoresShape)
        transform = "pixels" if named is None else named.transform
        flips = has_flips(images) if flips is None else flips
        shape = images.sample_shape if stored is None else stored.stored_shape
        self.settings = digest(codec.fingerprint, transform, str(shape), dtype, str(flips))

    def key(self, index: int) -> bytes:
        """The key of an item, from its content. Raises DataError when that cannot be read."""
        known = able(self.images, KnowsContent)
        data = self.images.fetch(index)["pixels"].numpy().tobytes() if known is None else known.content(index)
        return digest(data, self.settings)

    def stamp(self, index: int) -> bytes | None:
        """A cheap sign that an item is unchanged, or None when the data set has none."""
        known = able(self.images, KnowsStamp)
        return None if known is None else digest(known.stamp(index))

    def name(self, index: int) -> str:
        """The item, for messages."""
        return item_name(self.images, index)

    def find(self, index: int, stamps: dict[bytes, bytes]) -> tuple[bytes, bytes | None]:
        """The key of an item, empty when it cannot be read; and its stamp, if that did not tell the key."""
        stamp = self.stamp(index)
        known = None if stamp is None else stamps.get(stamp)
        if known is not None:
            return known, None
        try:
            return self.key(index), stamp
        except DataError:
            return b"", None


def stamps_path(folder: Path, keyring: Keyring) -> Path:
    """The table of stamps for these settings."""
    return folder / f"stamps-{keyring.settings.hex()}.safetensors"


def save_stamps(
    folder: Path, keyring: Keyring, stamps: dict[bytes, bytes], *, noted: float | None = None
) -> None:
    """Remember which stamp means which key, so that a run need not read every image again.

    noted: POSIX time since when all of them hold; now when left out.
    """
    table = torch.frombuffer(bytearray(b"".join(s + k for s, k in stamps.items())), dtype=torch.uint8)
    path = write_file(stamps_path(folder, keyring), as_safetensors({"table": table.reshape(-1, 32)}))
    if noted is not None:
        os.utime(path, (noted, noted))


def load_stamps(folder: Path, keyring: Keyring) -> dict[bytes, bytes]:
    """Stamp -> key; empty when there is no table or it is damaged (the images are then read instead)."""
    path = stamps_path(folder, keyring)
    if not path.exists():
        return {}
    try:
        table = read_tensors(path, "the table of stamps", error=DataError)["table"].numpy()
    except (DataError, KeyError) as error:
        logger.warning("the images are read instead: %s", reason(error))
        return {}
    return {bytes(row[:16]): bytes(row[16:]) for row in table}


def has_flips(images: Dataset) -> bool:
    """Whether mirror images are stored. Raises DataError for augmentation that a cache cannot reproduce."""
    mirrored = able(images, Flips)
    flips = mirrored is not None and bool(mirrored.horizontal_flip)
    moving = able(images, Moves)
    if augments(images) and (not flips or (moving is not None and moving.max_shift)):
        raise DataError("latents of a data set with other augmentation than flips cannot be cached")
    return flips


def annotations_of(images: Any, index: int) -> dict[str, Any]:
    """What an item carries besides pixels."""
    own = able(images, Annotates)
    if own is not None:
        return dict(own.annotations(index))
    return {key: value for key, value in images.fetch(index).items() if key != "pixels"}


def item_name(images: Any, index: int) -> str:
    """The file of an item, or its number."""
    files = able(images, KnowsPath)
    return f"item {index}" if files is None else str(files.path(index))
