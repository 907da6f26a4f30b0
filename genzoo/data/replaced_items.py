"""Items that were replaced under an unchanged size and time, as `rsync -t` and `cp -p` keep both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import KnowsPath
from genzoo.core.errors import DataError
from genzoo.core.types import Dataset
from genzoo.data.latent_keys import Keyring

MOST_ITEMS = 64
MOST_BYTES = 256 * 1024**2  # enough for one at least


def replaced_items(keyring: Keyring, keys: Sequence[bytes], *, since: float) -> tuple[list[int], int]:
    """Items whose content has another key than the one that is known, among some that may have; how many.

    keys: of each item, empty where it is not known.   since: POSIX time when they were noted; what the file
    system has not touched later is not read. Others are read, up to MOST_ITEMS spread evenly.
    """
    touched = [item for item, key in enumerate(keys) if key and _touched(keyring.images, item) > since]
    num = min(MOST_ITEMS, len(touched))
    looked_at = list(_within_bytes(keyring.images, [touched[i * len(touched) // num] for i in range(num)]))
    return [item for item in looked_at if _differs(keyring, item, keys[item])], len(looked_at)


def _touched(images: Dataset, item: int) -> float:
    """When content, owner, mode or name of a file changed: nobody can set this time."""
    path = _path(images, item)
    try:
        return 0.0 if path is None else max(path.stat().st_ctime, path.lstat().st_ctime)
    except OSError:
        return 0.0


def _within_bytes(images: Dataset, items: Sequence[int]) -> Iterator[int]:
    left = MOST_BYTES
    for item in items:
        path = _path(images, item)
        if left <= 0 or path is None:
            return
        left -= path.stat().st_size
        yield item


def _differs(keyring: Keyring, item: int, key: bytes) -> bool:
    try:
        return keyring.key(item) != key
    except DataError:
        return False  # the sample stream meets it, and names it


def _path(images: Dataset, item: int) -> Path | None:
    files = able(images, KnowsPath)
    return None if files is None else Path(files.path(item))
