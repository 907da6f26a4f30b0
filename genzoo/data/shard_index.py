"""Where the samples of a tar shard are: made once by `genzoo prepare shards`, or read from DALI's .idx.

SHARD.tar.index.safetensors holds, by sample: key, offset and size of the picture, of the caption (or -1), the
class (or -1) and the extension; and of the shard its size, its time and a hash of both its ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import as_safetensors, write_file
from genzoo.core.reading import read_text
from genzoo.core.tensor_files import look, open_tensors
from genzoo.data.image_listing import Names
from genzoo.data.shard_places import RemoteFile, ShardPlace
from genzoo.data.tar_members import BLOCK, Member, header_size, refused
from genzoo.data.tar_samples import (
    CAPTION,
    CLASS,
    MAX_CLASS,
    PICTURES,
    ShardContent,
    class_of,
    read_shard,
    sample_key,
)

SUFFIX = ".index.safetensors"
FORMAT = "1"
EDGE = 1 << 20  # bytes at each end of a shard that are hashed
NONE = -1
Row = tuple[str, tuple[int, int, int, int], int, int]  # key, places, class, number of the extension
ANOTHER = "`genzoo prepare shards FOLDER` makes one of its own, which is then used"
DALI_HEAD = re.compile(r"v1\.2 (\d+)")
ARRAYS = ("offsets", "sizes", "labels", "caption_offsets", "caption_sizes", "extensions", "names", "ends")


@dataclass(frozen=True)
class ShardIndex:
    """places: (n, 4) int64, offset and size of picture and caption, NONE where there is none.   labels: (n,)
    int64, NONE without class.   extensions: (n,) of PICTURES.   checked: whether headers were looked at."""

    path: ShardPlace
    keys: Names
    places: np.ndarray
    labels: np.ndarray
    extensions: np.ndarray
    checked: bool = True

    def __len__(self) -> int:
        return len(self.labels)


def make_index(path: ShardPlace, folder: Path | None = None) -> tuple[Path, ShardContent]:
    """Scan a shard, and write its index beside it, or into another folder. Raises DataError."""
    content = read_shard(path)
    samples = content.samples
    captions = [(NONE, NONE) if s.caption is None else (s.caption.offset, s.caption.size) for s in samples]
    keys = [sample.key.encode("utf-8", "surrogateescape") for sample in samples]
    tensors: dict[str, Tensor] = {
        "offsets": _integers([sample.picture.offset for sample in samples]),
        "sizes": _integers([sample.picture.size for sample in samples]),
        "labels": _integers([NONE if sample.label is None else sample.label for sample in samples]),
        "caption_offsets": _integers([offset for offset, _ in captions]),
        "caption_sizes": _integers([size for _, size in captions]),
        "extensions": torch.tensor(
            [PICTURES.index(sample.extension) for sample in samples], dtype=torch.uint8
        ),
        "names": torch.frombuffer(bytearray(b"".join(keys)) or bytearray(1), dtype=torch.uint8),
        "ends": _integers(np.cumsum([0, *map(len, keys)]).tolist()),
    }
    about = {"format": FORMAT, "shard": json.dumps(_state(path) | {"edges": _edges(path)})}
    return write_file(_claimed(index_path(path, folder)), as_safetensors(tensors, about)), content


def is_current(path: ShardPlace, folder: Path | None = None) -> bool:
    """Whether a shard has an index that is its own; another time alone is settled by a look at its ends."""
    known = _known(index_path(path, folder))
    state = _state(path)
    if known.get("size") != state["size"]:
        return False
    return known.get("mtime_ns") == state["mtime_ns"] or known.get("edges") == _edges(path)


def _known(index: ShardPlace) -> dict[str, Any]:
    """What an index says of its shard; {} for none, or a damaged one. Raises DataError for the disk."""

    def read(file: Any) -> Any:
        about = file.metadata() or {}
        return json.loads(about["shard"]) if about.get("format") == FORMAT else {}

    if not isinstance(index, Path):
        return read(_Remote(index)) if index.exists() else {}
    found = look(index, read, "the index", error=DataError)
    return found if isinstance(found, dict) else {}


def _claimed(index: ShardPlace) -> Path:
    """Where an index is written: nothing is there, or one of ours. Raises UsageError."""

    def has_format(file: Any) -> bool:
        return (file.metadata() or {}).get("format") is not None and set(ARRAYS) <= set(file.keys())

    if not isinstance(index, Path):
        raise UsageError(
            "indices are not written behind URLs", why=str(index), fix="name a folder with --output"
        )
    if os.path.lexists(index) and not look(index, has_format, "the index", error=DataError):
        raise UsageError(
            f"{index} is no index that genzoo wrote, and is not replaced",
            fix="move it away, or name another folder with --output",
        )
    return index


def open_index(path: ShardPlace, folder: Path | None = None) -> ShardIndex:
    """The index of a shard, its own or DALI's. Raises DataError where there is none that fits."""
    if is_current(path, folder):
        return _read(path, index_path(path, folder))
    idx = path.with_suffix(".idx")
    if not index_path(path, folder).exists() and idx.is_file():
        return _from_dali(path, idx)
    raise DataError(
        "the shard has no index, or one of other content",
        where=str(path),
        fix=f"`genzoo prepare shards {path.parent}` makes it",
    )


def index_path(path: ShardPlace, folder: Path | None = None) -> ShardPlace:
    """Where the index of a shard lies."""
    return (folder or path.parent) / f"{path.name}{SUFFIX}"


def require_header(path: ShardPlace, header: bytes, name: str, size: int) -> None:
    """Raise DataError unless a member of this size follows the header: an index of others may be old."""
    if header_size(header, where=path) != size:
        raise refused(path, name, "the index says another size than the archive")


def _read(path: ShardPlace, index: ShardPlace) -> ShardIndex:
    if isinstance(index, Path):
        with open_tensors(index, "the index", error=DataError) as file:
            arrays = {name: file.get_tensor(name).numpy() for name in ARRAYS}
    else:
        arrays = _Remote(index).arrays()
    places = np.stack(
        [arrays[name] for name in ("offsets", "sizes", "caption_offsets", "caption_sizes")], axis=1
    )
    keys = Names.of(arrays["names"], arrays["ends"])
    return ShardIndex(path, keys, places, arrays["labels"], arrays["extensions"])


class _Remote:
    """An index behind a URL, read whole. Raises DataError when it is damaged."""

    def __init__(self, index: RemoteFile) -> None:
        self._index, self._data = index, index.read()

    def metadata(self) -> dict[str, str]:
        """What the file says of itself."""
        try:
            end = 8 + int.from_bytes(self._data[:8], "little")
            return dict(json.loads(self._data[8:end])["__metadata__"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def arrays(self) -> dict[str, np.ndarray]:
        """All of ARRAYS."""
        try:
            found = load(self._data)
            return {name: found[name] for name in ARRAYS}
        except (SafetensorError, ValueError, KeyError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        return DataError("the index is damaged", where=str(self._index), why=str(error))


def _from_dali(path: ShardPlace, idx: ShardPlace) -> ShardIndex:
    """A text index of wds2idx: "v1.2 n", then a line of `extension offset size name` of each member."""
    text = read_text(idx, "the index") if isinstance(idx, Path) else idx.read().decode("utf-8", "replace")
    lines = text.splitlines()
    head = DALI_HEAD.fullmatch(lines[0]) if lines else None
    if head is None or int(head[1]) != len(lines) - 1:
        raise DataError(
            "this is no index of version 1.2",
            where=str(idx),
            fix=f"remove it, and `genzoo prepare shards {path.parent}`",
        )
    rows = [_dali_row(line, path, idx) for line in lines[1:]]
    kept = [row for row in rows if row is not None]
    return ShardIndex(
        path,
        Names([row[0] for row in kept]),
        np.array([row[1] for row in kept], np.int64).reshape(-1, 4),
        np.array([row[2] for row in kept], np.int64),
        np.array([row[3] for row in kept], np.uint8),
        checked=False,
    )


def _dali_row(line: str, path: ShardPlace, idx: ShardPlace) -> Row | None:
    words = line.split(" ")
    parts = [words[start : start + 4] for start in range(0, len(words), 4)]
    if not all(len(part) == 4 and part[1].isdigit() and part[2].isdigit() for part in parts):
        raise DataError(
            "names with blanks make this index ambiguous",
            where=str(idx),
            fix="`genzoo prepare shards` makes another",
        )
    members = {ext.lower(): Member(name, int(offset), int(size)) for ext, offset, size, name in parts}
    picture = next((extension for extension in members if extension in PICTURES), None)
    if picture is None:
        return None
    place, caption, label = members[picture], members.get(CAPTION), members.get(CLASS)
    around = (NONE, NONE) if caption is None else (caption.offset, caption.size)
    number = NONE if label is None else _dali_class(path, label)
    return sample_key(place.name)[0], (place.offset, place.size, *around), number, PICTURES.index(picture)


def _dali_class(path: ShardPlace, member: Member) -> int:
    with path.open("rb") as file:
        file.seek(member.offset - BLOCK)
        require_header(path, file.read(BLOCK), member.name, member.size)
        return class_of(file.read(min(member.size, MAX_CLASS)), path, member.name)


def _integers(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _state(path: ShardPlace) -> dict[str, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError("the shard cannot be read", where=str(path), why=str(error)) from error
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _edges(path: ShardPlace) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(EDGE))
        file.seek(max(0, path.stat().st_size - EDGE))
        digest.update(file.read(EDGE))
    return digest.hexdigest()
