"""One direction of the scan as one value, which every backend takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from genzoo.kernels.triton_host import spread


class Scan(NamedTuple):
    """What one direction of the recurrence reads, and its parameters.

    u, delta: (b, l, d).   A: (d, n), real.   D, delta_bias: (d,), or None.
    B, C: (b, l, n); some backends also take (b, l, g, n) in g groups of channels, or (d, n) constant.
    Nothing is flipped for the reverse direction: position t of every tensor is position t of the sequence.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    delta_bias: Tensor | None = None


def pack(scans: Sequence[Scan], z: Tensor | None) -> tuple[list[Tensor], list[bool]]:
    """The arguments of a custom op, which takes no records: one or two scans, then the gate.

    Returns the tensors that are there, and for each place whether one is.
    """
    places = [*(tensor for scan in scans for tensor in scan), z]
    return [tensor for tensor in places if tensor is not None], [tensor is not None for tensor in places]


def unpack(tensors: Sequence[Tensor], present: Sequence[bool]) -> tuple[list[Scan], Tensor | None]:
    """Undo `pack`."""
    (*fields, z), size = spread(tensors, present), len(Scan._fields)
    return [Scan(*fields[i : i + size]) for i in range(0, len(fields), size)], z  # type: ignore[arg-type]


def gated(y: Tensor, z: Tensor | None, like: Tensor) -> Tensor:
    """y silu(z), or y without a gate, computed in y's dtype and returned in that of `like`."""
    return (y if z is None else y * F.silu(z.to(y.dtype))).to(like.dtype)
