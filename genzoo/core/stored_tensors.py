"""A checkpoint opened by several processes: one reads, tensor by tensor, and all receive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from genzoo.core.checkpoint import Verify
from genzoo.core.checkpoint_manifest import PARTS, read_in, read_json, verify_checkpoint
from genzoo.core.processes import World
from genzoo.core.tensor_layout import CODES

AHEAD = 64 << 20  # bytes that the reader may be ahead of the slowest receiver
DTYPES = {code: dtype for dtype, code in CODES.items()}


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of one file by name, each read when it is asked for, on the CPU or the world's device.

    Every process asks for the same names in the same order. shapes: by name, as tensors without data.
    """

    def __init__(
        self, path: Path, shapes: Mapping[str, Tensor], world: World, device: torch.device, file: Any
    ) -> None:
        self.path, self.shapes, self.world, self.device = path, dict(shapes), world, device
        self._file = file
        self._sent = 0

    @classmethod
    def open(cls, path: Path, world: World, device: torch.device) -> StoredTensors:
        """Open a file that was verified; only the first process needs to see it."""
        opened: list[Any] = []  # stays in the first process

        def look() -> list[tuple[str, list[int], torch.dtype]]:
            opened.append(_opened(path))
            return _shapes(path, opened[0])

        found = world.on_first(look)
        shapes = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape, dtype in found}
        return cls(path, shapes, world, device, opened[0] if opened else None)

    def only(self, names: Sequence[str]) -> StoredTensors:
        """Some of them."""
        chosen = {name: self.shapes[name] for name in names}
        return StoredTensors(self.path, chosen, self.world, self.device, self._file)

    def __getitem__(self, name: str) -> Tensor:
        about = self.shapes[name]
        tensor: Tensor
        if self.world.size == 1:
            tensor = self._file.get_tensor(name)
            return tensor
        if self.world.is_first:
            tensor = self._file.get_tensor(name).to(self.device)
        else:
            tensor = torch.empty_like(about, device=self.device)
        self.world.broadcast(tensor)
        self._sent += tensor.nbytes
        if self._sent >= AHEAD:
            self.world.wait()
            self._sent = 0
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@dataclass(frozen=True)
class OpenCheckpoint:
    """As `core.checkpoint.Checkpoint`, with tensors that are read when they are asked for."""

    path: Path
    step: int
    weights: StoredTensors
    ema: StoredTensors
    optimizer: StoredTensors
    state: dict[str, Any]


def open_checkpoint(
    path: Path, world: World, device: torch.device, verify: Verify = verify_checkpoint
) -> OpenCheckpoint:
    """Verify a step in the first process and open it in all. Raises CheckpointError in all."""
    step, state = world.on_first(lambda: (verify(path, PARTS), read_json(path, "state.json")))
    weights, ema, optimizer = (
        StoredTensors.open(path / f"{part}.safetensors", world, device) for part in PARTS
    )
    return OpenCheckpoint(path, step, weights, ema, optimizer, state)


def shapes_of(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What to compare names, shapes and dtypes with, without reading what is not read yet."""
    return tensors.shapes if isinstance(tensors, StoredTensors) else tensors


def chosen(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Mapping[str, Tensor]:
    """Some of them, unread where they are."""
    if isinstance(tensors, StoredTensors):
        return tensors.only(names)
    return {name: tensors[name] for name in names}


def _opened(path: Path) -> Any:
    with read_in(path.parent, path.name):
        return safe_open(path, "pt")


def _shapes(path: Path, file: Any) -> list[tuple[str, list[int], torch.dtype]]:
    with read_in(path.parent, path.name):
        slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118  no mapping
        return [(name, part.get_shape(), DTYPES[part.get_dtype()]) for name, part in slices]
