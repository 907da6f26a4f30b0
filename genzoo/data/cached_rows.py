"""Stored rows by item: one of a picture, one of each frame of a video. What cached data sets read from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.core.processes import World
from genzoo.core.types import LatentCodec
from genzoo.data.latent_keys import Keyring, load_stamps, save_stamps, stamps_path
from genzoo.data.latent_store import LatentStore, ShardReader
from genzoo.data.replaced_items import replaced_items

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "uint8": torch.uint8,  # of codecs whose moments are 8-bit levels, such as controls
}
MISSING = (-1, -1)
NO_KEY = bytes(16)
UNREAD = "it could not be read when the cache was made"
logger = logging.getLogger(__name__)


class CachedRows:
    """The rows of a folder that belong to the items of a data set; `bind` finds them.

    row_key: (an item's key, number of its row) -> the row's key.   what: the items are, in messages.
    world: the processes that look for the rows together.
    """

    def __init__(
        self, folder: str | Path, *, dtype: str, row_key: Callable[[bytes, int], bytes], what: str
    ) -> None:
        if dtype not in DTYPES:
            raise DataError(f"latents are stored as {', '.join(DTYPES)}; not as {dtype!r}")
        self.folder, self._row_key, self._what = Path(folder).expanduser(), row_key, what
        self.reader: ShardReader | None = None
        self.world = World.single()
        # arrays, not lists: a million Python objects would be copied into every loader worker
        self._keys = np.zeros((0, 16), np.uint8)
        self._places = np.zeros((0, 2), np.int32)
        self._ends = np.zeros(1, np.int64)

    def bind(self, keyring: Keyring, counts: Sequence[int], look: Callable[[int, int], object]) -> None:
        """Find the rows of every item. Raises DataError when data that can be read have none: they are new or
        edited; or when some that are looked at were replaced under the same size and time.

        counts: rows of each item.   look: reads (item, row) from the data, and raises DataError for bad ones.
        """
        store, stamps = LatentStore(self.folder), load_stamps(self.folder, keyring)
        keys = self._keys_of(keyring, len(counts), stamps)
        rows = ((key, row) for key, count in zip(keys, counts, strict=True) for row in range(count))
        places = [store.places.get(self._row_key(*row), MISSING) for row in rows]
        self._keys = np.frombuffer(b"".join(key or bytes(16) for key in keys), np.uint8).reshape(-1, 16)
        self._places = np.array(places, np.int32).reshape(-1, 2)
        self._ends = np.cumsum([0, *counts])
        self._refuse_stale(keyring, look)
        self._refuse_replaced(keyring, keys if stamps else [])
        self.reader = store.reader

    def _keys_of(self, keyring: Keyring, num: int, stamps: dict[bytes, bytes]) -> list[bytes]:
        """The key of every item, empty where it cannot be read; each is looked at by one process."""
        found: dict[bytes, bytes] = {}

        def look() -> bytes:
            keys = []
            for index in self.world.part(num):
                key, stamp = keyring.find(index, stamps)
                if stamp is not None:
                    found[stamp] = key  # copied, say, to a node's disk: read now, and known from now on
                keys.append(key or NO_KEY)
            return b"".join(keys)

        joined = b"".join(self.world.gather(self.world.together(look)))
        fresh = {stamp: key for part in self.world.gather(found) for stamp, key in part.items()}
        if fresh:
            self.world.on_first(lambda: self._remember(keyring, stamps, fresh))
        keys = [joined[start : start + len(NO_KEY)] for start in range(0, len(joined), len(NO_KEY))]
        return [b"" if key == NO_KEY else key for key in keys]

    def _remember(self, keyring: Keyring, stamps: dict[bytes, bytes], fresh: dict[bytes, bytes]) -> None:
        path = stamps_path(self.folder, keyring)
        noted = path.stat().st_mtime if stamps else None  # the old ones were not looked at again
        try:
            save_stamps(self.folder, keyring, stamps | fresh, noted=noted)
        except DataError as error:  # a folder to read only: the next start will read the pictures again
            logger.info("%s", error)

    def _refuse_stale(self, keyring: Keyring, look: Callable[[int, int], object]) -> None:
        names = list(islice((keyring.name(item) for item in self._stale(look)), 4))
        if names:
            raise DataError(
                f"the latent cache does not fit the {self._what}s, the codec or the settings",
                where=str(self.folder),
                why="no entry for " + ", ".join(names[:3]) + (" ..." if len(names) > 3 else ""),
                fix="`genzoo prepare latents RECIPE` builds what is missing",
            )

    def _refuse_replaced(self, keyring: Keyring, keys: Sequence[bytes]) -> None:
        """keys: those that stamps told, without looking at the content."""
        if not keys:
            return
        noted = stamps_path(self.folder, keyring).stat().st_mtime
        replaced, looked_at = replaced_items(keyring, keys, since=noted)
        if replaced:
            names = ", ".join(keyring.name(item) for item in replaced[:3])
            raise DataError(
                f"{len(replaced)} of {looked_at} {self._what}s looked at are not those in the latent cache",
                where=str(self.folder),
                why=f"their size and time are unchanged: {names}{' ...' if len(replaced) > 3 else ''}",
                fix="`genzoo prepare latents RECIPE` reads every one, and encodes what changed",
            )

    def _stale(self, look: Callable[[int, int], object]) -> Iterator[int]:
        """Items with a row that can be read from the data and is not in the cache."""
        for item in range(len(self._keys)):
            missing = np.flatnonzero(self._places[self._ends[item] : self._ends[item + 1], 0] < 0)
            try:
                if len(missing):
                    look(item, int(missing[0]))
                    yield item
            except DataError:
                continue

    def has(self, item: int, row: int) -> bool:
        """Whether a row was encoded."""
        return bool(self._places[self._ends[item] + row, 0] >= 0)

    def read(self, item: int, row: int, *, where: str) -> Tensor:
        """A row, and where mirror images are kept, its mirror image: (1 or 2, ...), as it is stored.

        where: the item, for errors.
        """
        if self.reader is None:
            raise UsageError("cached latents have no codec yet", fix="call dataset.bind_codec(codec) first")
        if not self.has(item, row):
            raise DataError(f"row {row} of this {self._what} could not be encoded", where=where, why=UNREAD)
        number, place = self._places[self._ends[item] + row].tolist()
        return self.reader.read(number, place, self._row_key(self._keys[item].tobytes(), row))


def require_codec(codec: LatentCodec | None) -> LatentCodec:
    """The codec. Raises UsageError when cached latents have none."""
    if codec is None:
        raise UsageError(
            "the data are cached latents, but there is no codec",
            fix="drop data.latent_cache, or name a codec",
        )
    return codec
