"""Files of tensors that several processes fill at once: each writes the rows that it holds, at their places.

The layout follows from names, shapes and dtypes, so that everybody knows where everything goes, and nothing
is sent: the bytes are those that one process would write. All of them must see one file system.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import Shards
from genzoo.core.files import make_sized, open_to_fill
from genzoo.core.processes import World
from genzoo.core.sharded import first_row, is_in_rows, own_part
from genzoo.core.tensor_layout import as_bytes, header, spans
from genzoo.core.tensor_stream import HashedFile, Segment

Parts = Mapping[str, Mapping[str, Tensor]]
Written = Mapping[str, "list[Segment] | OSError"]


def can_be_filled(parts: Parts, world: World) -> bool:
    """Whether several processes hold tensors in rows, and nothing in another way."""
    tensors = [tensor for content in parts.values() for tensor in content.values()]
    shared = any(able(tensor, Shards) is not None for tensor in tensors)
    return world.size > 1 and shared and all(is_in_rows(tensor) for tensor in tensors)


class RowsOfFile:
    """What one process writes of a file.

    size: of the whole file.   head: its first bytes, which the first process writes.   starts: of each tensor
    of which this process writes something, where that begins in the file.
    """

    def __init__(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, is_first: bool) -> None:
        self.head = header(tensors, metadata)
        ends, self.starts = spans(tensors), dict[str, int]()
        self.size = len(self.head) + max((end for _, end in ends.values()), default=0)
        self.is_first = is_first
        for name, (start, end) in ends.items():
            tensor, plain = tensors[name], 0 if is_first else None  # all have the same
            row = plain if able(tensor, Shards) is None else first_row(tensor)
            if row is not None and end > start:
                length = (end - start) // tensor.shape[0] if row else 0  # bytes of a row
                self.starts[name] = len(self.head) + start + row * length

    def begin(self, path: Path, own: Mapping[str, Tensor]) -> HashedFile:
        """Write the parts that this process holds; their hash and sync go on meanwhile."""
        file = HashedFile(path, open_to_fill)
        if self.is_first:
            file.add(self.head)
        for name, start in self.starts.items():
            rows = own[name]
            if rows.numel():
                stays = rows.device.type == "cpu" and rows.is_contiguous()
                file.add(as_bytes(rows), at=start, stays=stays)
        file.close()
        return file


class FilesInRows:
    """The files of one folder, one for each part, which all processes fill."""

    def __init__(self, folder: Path, parts: Parts, metadata: Mapping[str, str], world: World) -> None:
        self.folder, self.world = folder, world
        self._rows = {
            f"{part}.safetensors": RowsOfFile(content, metadata, is_first=world.is_first)
            for part, content in parts.items()
        }
        self._parts = {f"{part}.safetensors": part for part in parts}

    def make(self) -> None:
        """Files of the right size, in the first process, before anybody fills them. Raises OSError."""
        for name, rows in self._rows.items():
            make_sized(self.folder / name, rows.size)

    def names(self, part: str) -> list[str]:
        """The tensors of which this process writes something."""
        return list(self._rows[f"{part}.safetensors"].starts)

    def write(self, own: Parts) -> Written:
        """Fill in what this process holds, by itself.   own: its rows of every tensor that `names` names."""
        files = {
            name: rows.begin(self.folder / name, own[self._parts[name]]) for name, rows in self._rows.items()
        }
        return {name: file.segments() for name, file in files.items()}

    def joined(self, written: Written) -> Written:
        """What all of them wrote, in every process; all call it together."""
        everyone = self.world.gather(written)
        return {name: _joined([one[name] for one in everyone]) for name in self._rows}


def own_parts_of(parts: Parts) -> dict[str, dict[str, Tensor]]:
    """The rows that this process holds of every tensor, sharing their memory."""
    return {part: {name: own_part(t) for name, t in content.items()} for part, content in parts.items()}


def _joined(found: list[list[Segment] | OSError]) -> list[Segment] | OSError:
    segments: list[Segment] = []
    for one in found:
        if isinstance(one, OSError):
            return one
        segments += one
    return sorted(segments)
