"""How tensors become the arguments of the two Triton kernels, and their partial sums become gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genzoo.kernels.scan import triton_configs
from genzoo.kernels.scan.record import Scan
from genzoo.kernels.scan.triton_configs import Tiles, padded_state
from genzoo.kernels.triton_host import dense_rows, empty_like, strides, sum_slots

NO_STRIDES = (0, 0)
ABSENT = ((None,) * 9, (NO_STRIDES,) * 4)


def pointers_and_strides(
    scan: Scan, *extra: Tensor | None
) -> tuple[tuple[Tensor | None, ...], tuple[tuple[int, int], ...]]:
    """The kernels' tuple of pointers, ending with `extra`, and the strides of u, delta, B, C."""
    u, delta, B, C = (dense_rows(tensor) for tensor in (scan.u, scan.delta, scan.B, scan.C))
    A, D, bias = (None if t is None else t.contiguous() for t in (scan.A, scan.D, scan.delta_bias))
    return (u, delta, A, B, C, D, bias, *extra), tuple(strides(tensor) for tensor in (u, delta, B, C))


def gate_arguments(z: Tensor | None) -> tuple[Tensor | None, tuple[int, int]]:
    """z with dense channels, and its strides."""
    gate = None if z is None else dense_rows(z)
    return gate, NO_STRIDES if gate is None else strides(gate)


def gradient_buffers(scan: Scan, tiles: Tiles, chunks: int) -> tuple[Tensor | None, ...]:
    """du, ddelta whole; dA, dB, dC, dD, dbias with one slot per program that adds to them.

    In float32; the parts of dB and dC, the largest, in bf16 where the sums become that anyway: they are
    dozens, so that their roundings vanish beside the last one.
    """
    batch, _, width = scan.u.shape
    blocks, parts_of_length = num_blocks(width, tiles), batch * chunks
    shapes = [(parts_of_length, *scan.A.shape), (blocks, *scan.B.shape), (blocks, *scan.C.shape)]
    whole = [empty_like(scan.u), empty_like(scan.delta)]
    dtypes = (torch.float32, *(kept_dtype(tensor) for tensor in (scan.B, scan.C)))
    parts = [scan.u.new_empty(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    per_channel = scan.u.new_empty((2, parts_of_length, width), dtype=torch.float32)
    optional = [None if t is None else per_channel[i] for i, t in enumerate((scan.D, scan.delta_bias))]
    return (*whole, *parts, *optional)


def kept_dtype(tensor: Tensor) -> torch.dtype:
    """Of values that a gradient like `tensor` is made of; float16 could not hold them all."""
    return torch.bfloat16 if tensor.dtype == torch.bfloat16 else torch.float32


def reduce_slots(scans: Sequence[Scan], buffers: Sequence[Sequence[Tensor | None]]) -> list[Tensor]:
    """Gradients of the tensors of all scans that are there, in their order and dtypes: slots added up."""
    parts = [
        (slots.flatten(1)[None], tensor)
        for scan, found in zip(scans, buffers, strict=True)
        for slots, tensor in zip(found[2:], scan[2:], strict=True)
        if slots is not None and tensor is not None
    ]
    summed = iter(sum_slots([slots for slots, _ in parts], [tensor for _, tensor in parts]))
    return [
        slots if place < 2 else next(summed)
        for found in buffers
        for place, slots in enumerate(found)
        if slots is not None
    ]


class Results(NamedTuple):
    """What the forward writes. What nobody asked for is empty: a custom op returns a fixed number of tensors.

    out: (b, l, d).   y_kept: (b, l, d), before the gate, for its gradient.   last_state: (b, d, n).
    saved, saved_b: (b, segments, d, n), the state before each segment of either direction.
    """

    out: Tensor
    y_kept: Tensor
    last_state: Tensor
    saved: Tensor
    saved_b: Tensor


def allocate(u: Tensor, A: Tensor, *, both: bool, gated: bool, training: bool, last_state: bool) -> Results:
    """Empty results."""
    batch, length, width = u.shape
    segments = -(-length // triton_configs.SEGMENT) if training else 0
    keep = training and gated
    return Results(
        out=empty_like(u),
        y_kept=u.new_empty((batch, length, width) if keep else (0,), dtype=kept_dtype(u)),
        last_state=u.new_empty((batch, *A.shape) if last_state else (0,), dtype=torch.float32),
        saved=u.new_empty((batch, segments, *A.shape), dtype=torch.float32),
        saved_b=u.new_empty((batch, segments if both else 0, *A.shape), dtype=torch.float32),
    )


def scratch_states(scan: Scan, tiles: Tiles, chunks: int) -> Tensor:
    """Room for the state before each tile of the segment that a program works on."""
    per_segment = triton_configs.SEGMENT // tiles.rows
    return scan.u.new_empty((scan.u.shape[0] * chunks, per_segment, *scan.A.shape), dtype=torch.float32)


def chunk_ends(scan: Scan, chunks: int) -> tuple[Tensor, Tensor]:
    """For each chunk the sum of dt (b, chunks, d), and what it makes of a zero state (b, chunks, d, n)."""
    shape = (scan.u.shape[0], chunks, *scan.A.shape)
    return scan.u.new_empty(shape[:3], dtype=torch.float32), scan.u.new_empty(shape, dtype=torch.float32)


def tile_arguments(tiles: Tiles, d_state: int) -> dict[str, Any]:
    """Compile-time arguments that follow from the tile size."""
    assert triton_configs.SEGMENT % tiles.rows == 0, "states are saved between two tiles"
    return {
        "STATES": padded_state(d_state),
        "GROUPS": tiles.groups,
        "LANES": tiles.lanes,
        "ROWS": tiles.rows,
        "SEGMENT": triton_configs.SEGMENT,
        "num_warps": tiles.warps,
        "enable_fp_fusion": True,  # Triton's default is about to change; the scan is one fused multiply-add
        **({} if tiles.registers is None else {"maxnreg": tiles.registers}),
    }


def tuning_key(scan: Scan, *rest: object) -> tuple[object, ...]:
    """Batches and lengths share a measurement within a factor of two."""
    u = scan.u
    batch, length, width = u.shape
    return (u.device, u.dtype, batch.bit_length(), length.bit_length(), width, scan.A.shape[1], *rest)


def num_blocks(width: int, tiles: Tiles) -> int:
    """Programs that share the channels of one sample."""
    return -(-width // (tiles.groups * tiles.lanes))
