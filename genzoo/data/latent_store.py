"""A folder of latents addressed by content: shards of rows, each row under a key and with its own checksum.

A shard is one safetensors file with keys (n, 16) uint8, checksums (n, 8) uint8 and moments (n, k, ...).
Shards are written beside their place, synced and renamed, and never change afterwards, so a killed writer
leaves nothing half done. There is no separate index to disagree with them: it is read from their keys. A
shard that the disk does not give is an error; only one whose bytes were read and do not fit is ever removed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.files import as_safetensors, sync_path, write_file

logger = logging.getLogger(__name__)

SHARD = re.compile(r"shard-[0-9a-f]{32}\.safetensors")  # other names are somebody else's
OWN = re.compile(r"(shard|stamps)-[0-9a-f]{32}\.safetensors")
SHARD_BYTES = 32 * 1024**2
_OPEN_SHARDS = 64  # files kept open at once; far below usual limits


def digest(*parts: str | bytes, size: int = 16) -> bytes:
    """A hash of parts with their lengths, so that moving a border between two parts changes it."""
    state = hashlib.blake2b(digest_size=size)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.digest()


class ShardReader:
    """Reads rows of shards; holds paths and a few open files, so it is cheap to hand to loader workers."""

    def __init__(self) -> None:
        self.shards: list[Path] = []
        self._open: OrderedDict[int, Any] = OrderedDict()

    def read(self, number: int, row: int, key: bytes) -> Tensor:
        """One row, (k, ...). Raises DataError when it cannot be read or its checksum does not fit."""
        path = self.shards[number]
        where, fix = f"{path}, row {row}", "`genzoo prepare latents` builds it again"
        try:
            shard = self._shard(number)
            moments: Tensor = shard.get_slice("moments")[row : row + 1][0]
            checksum = bytes(shard.get_slice("checksums")[row : row + 1][0].numpy())
        except (SafetensorError, OSError, IndexError, RuntimeError) as error:
            _require_given(path)
            why = str(error)
            raise DataError("the latent cache cannot be read", where=where, why=why, fix=fix) from error
        if _checksum(key, moments) != checksum:
            raise DataError("a row of the latent cache is damaged", where=where, fix=fix)
        return moments

    def _shard(self, number: int) -> Any:
        if number not in self._open:
            self._open[number] = safe_open(self.shards[number], "pt")
        self._open.move_to_end(number)
        if len(self._open) > _OPEN_SHARDS:
            self._open.popitem(last=False)
        return self._open[number]

    def remove(self, number: int) -> None:
        """Delete a shard; its number is not used again."""
        self._open.pop(number, None)
        self.shards[number].unlink()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}  # open files do not travel to other processes


def is_cache(folder: Path) -> bool:
    """Whether a folder holds shards or tables of stamps, and so is a cache that was begun before."""
    return any(OWN.fullmatch(path.name) for path in folder.glob("*.safetensors"))


class LatentStore:
    """Rows of latents under 16-byte keys; `places` tells the shard's number and the row of each."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.reader = ShardReader()
        self.places: dict[bytes, tuple[int, int]] = {}
        self._unreadable: list[Path] = []
        for path in sorted(self.folder.glob("shard-*")):
            if SHARD.fullmatch(path.name):
                self._adopt(path)

    def _adopt(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as shard:
                keys = [bytes(row) for row in shard.get_tensor("keys").numpy()]
        except (
            SafetensorError,
            OSError,
            RuntimeError,
        ) as error:  # torch maps the file
            # safetensors says "no such file" whatever the disk said
            if not os.path.lexists(path):
                return  # another process has pruned it
            if _whole(path) is not None:
                raise _not_given(path, error) from error
            logger.warning("%s is damaged and is not used: %s", path, error)
            self._unreadable.append(path)
            return
        number = len(self.reader.shards)
        self.places |= {key: (number, row) for row, key in enumerate(keys)}
        self.reader.shards.append(path)

    def read(self, key: bytes) -> Tensor:
        """The row of a key, (k, ...). Raises DataError when it is damaged."""
        return self.reader.read(*self.places[key], key)

    def add(self, keys: Sequence[bytes], moments: Tensor) -> None:
        """Write rows as one new shard. moments: (n, k, ...)."""
        tensors = {
            "keys": _rows(keys),
            "checksums": _rows([_checksum(key, row) for key, row in zip(keys, moments, strict=True)]),
            "moments": moments.contiguous(),
        }
        path = self.folder / f"shard-{digest(*keys).hex()}.safetensors"
        write_file(path, as_safetensors(tensors))
        sync_path(self.folder)  # `keep` removes the shard that these rows come from
        self._adopt(path)

    def verify(self) -> list[str]:
        """Check all rows; take damaged ones out of the store and return where they were.

        Raises DataError, with nothing removed, when the disk does not give a shard.
        """
        lost = self._lost()
        damaged = self._damaged(lost)
        for path in self._unreadable:
            path.unlink()
        self._unreadable = []
        self.keep(self.places.keys() - lost)
        for place in damaged:
            logger.warning("damaged and taken out of the latent cache: %s", place)
        return damaged

    def check(self) -> list[str]:
        """Where rows are damaged; nothing is removed. Raises DataError when the disk gives no shard."""
        return self._damaged(self._lost())

    def _damaged(self, lost: Set[bytes]) -> list[str]:
        rows = sorted(self.places[key] for key in lost)
        return [
            *map(str, self._unreadable),
            *(f"{self.reader.shards[number]}, row {row}" for number, row in rows),
        ]

    def _lost(self) -> set[bytes]:
        """Keys whose rows are not those that were stored, by every byte of every shard."""
        shards: dict[int, list[bytes]] = {}
        for key, (number, _) in self.places.items():
            shards.setdefault(number, []).append(key)
        return {key for number, keys in shards.items() for key in self._lost_of(number, keys)}

    def _lost_of(self, number: int, keys: Sequence[bytes]) -> list[bytes]:
        content = _whole(self.reader.shards[number])
        if content is None or not {"moments", "checksums"} <= content.keys():
            return list(keys)
        moments, checksums = content["moments"], content["checksums"].numpy()
        rows = {key: self.places[key][1] for key in keys}
        return [key for key, row in rows.items() if _checksum(key, moments[row]) != bytes(checksums[row])]

    def keep(self, wanted: Set[bytes]) -> None:
        """Drop every row whose key is not wanted; a shard that loses rows is written anew, then removed."""
        shards: dict[int, list[bytes]] = {}
        for key, (number, _) in self.places.items():
            shards.setdefault(number, []).append(key)
        for number, keys in shards.items():
            rest = [key for key in keys if key in wanted]
            if len(rest) < len(keys):
                if rest:
                    self.add(rest, torch.stack([self.read(key) for key in rest]))
                self.reader.remove(number)
        self.places = {key: place for key, place in self.places.items() if key in wanted}


def _whole(path: Path) -> dict[str, Tensor] | None:
    """A shard from every byte of its file, or None when they were read and are no shard.

    Raises DataError when they cannot be read: that says nothing about them.
    """
    data = _require_given(path)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError):
        return None


def _require_given(path: Path) -> bytes:
    """The bytes of a file, not mapped: a disk that fails would kill the process. Raises DataError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _not_given(path, error) from error


def _not_given(path: Path, error: Exception) -> DataError:
    return DataError(
        "the latent cache cannot be read just now; nothing in it was removed",
        where=str(path),
        why=str(error),
        fix="run the same command again when the disk answers and enough files may be open (ulimit -n)",
    )


def _rows(values: Sequence[bytes]) -> Tensor:
    return torch.frombuffer(bytearray(b"".join(values)), dtype=torch.uint8).reshape(len(values), -1)


def _checksum(key: bytes, moments: Tensor) -> bytes:
    return digest(key, moments.contiguous().view(torch.uint8).numpy().tobytes(), size=8)
