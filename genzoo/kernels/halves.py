"""Gradients of the two halves of one projection, written side by side instead of copied together afterwards.

A mixer's in_proj makes x and z, which the convolution and the scan's gate read. The scan's gradient comes
first: it writes that of z as the second half of a buffer of both, and the convolution's, which comes last,
writes that of x into the first. The halves say so themselves, for nobody else may write into a buffer's rest.
"""

from __future__ import annotations

from torch import Tensor

MARK = "_genzoo_beside_room"


def mark_room(half: Tensor) -> Tensor:
    """Say of z that its gradient may be half of a buffer; of that gradient, that the rest is free."""
    setattr(half, MARK, True)
    return half


def has_room(half: Tensor) -> bool:
    """Whether `mark_room` said so of this very tensor."""
    return getattr(half, MARK, False)


def second_half(like: Tensor) -> Tensor:
    """Room for a gradient as the second half of a buffer.   like: (b, l, d)."""
    batch, length, width = like.shape
    return mark_room(like.new_empty(batch, length, 2 * width)[..., width:])


def buffer_of(half: Tensor) -> Tensor:
    """The buffer (b, l, 2d) of a `second_half`."""
    batch, length, width = half.shape
    strides = (2 * length * width, 2 * width, 1)
    return half.as_strided((batch, length, 2 * width), strides, half.storage_offset() - width)
