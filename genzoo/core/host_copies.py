"""Copies of tensors in this machine's memory, in places that are allocated once and filled again and again.

A place that is new costs more than the copy itself, because the system clears and maps its pages one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.memory import free_host_memory
from genzoo.core.sharded import whole

Parts = Mapping[str, Mapping[str, Tensor]]


class HostCopies:
    """A copy of tensors by part and name ("model", "ema", ...), whole where they are sharded."""

    def __init__(self) -> None:
        self._places: dict[str, dict[str, Tensor]] = {}

    def make_room(self, parts: Parts) -> None:
        """Allocate what is not there yet; nothing is copied. Raises UsageError where memory is too small."""
        wanted = {
            part: {name: self._place(part, name, t) for name, t in ts.items()} for part, ts in parts.items()
        }
        missing = sum(
            tensor.nbytes
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
            if wanted[part][name] is None
        )
        require_room(missing)
        self._places = {
            part: {
                name: _new(tensor) if (kept := wanted[part][name]) is None else kept
                for name, tensor in tensors.items()
            }
            for part, tensors in parts.items()
        }

    @torch.no_grad()
    def fill(self, parts: Parts, *, keeps: bool = True) -> None:
        """Copy all values.   keeps: False in processes that only hand over their rows of sharded tensors."""
        devices = set()
        for part, tensors in parts.items():
            for name, tensor in tensors.items():
                value = whole(tensor)
                devices.add(value.device)
                if keeps:
                    self._places[part][name].copy_(value, non_blocking=True)
        for device in devices:
            if device.type != "cpu":  # only now the values are there
                torch.get_device_module(device).synchronize()

    def copied(self) -> dict[str, dict[str, Tensor]]:
        """The copies, which the next `fill` overwrites."""
        return {part: dict(places) for part, places in self._places.items()}

    def _place(self, part: str, name: str, tensor: Tensor) -> Tensor | None:
        place = self._places.get(part, {}).get(name)
        fits = place is not None and place.shape == tensor.shape and place.dtype == tensor.dtype
        return place if fits else None


def require_room(size: int) -> None:
    """Raise UsageError when so many bytes are more than this machine has left."""
    free = free_host_memory()
    if free is not None and size > free:
        raise UsageError(
            "train.save: background copies each checkpoint into this machine's memory, which is too small",
            why=f"{size:,} bytes are needed, {free:,} are free",
            fix="use train.save: foreground",
        )


def _new(tensor: Tensor) -> Tensor:
    # from pinned memory a GPU is read at full speed, and without waiting for each tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
