"""The Triton scan as a torch custom op, so that compile, autocast and autograd see one opaque function.

The ops take what `record.pack` makes of one or two scans and the gate: the tensors that are there, and which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels import triton_host
from genzoo.kernels.direct import Direct
from genzoo.kernels.halves import has_room, second_half
from genzoo.kernels.scan.record import Scan, unpack
from genzoo.kernels.scan.triton_configs import (
    Split,
    Tiles,
    backward_tiles,
    forward_tiles,
    padded_state,
    pick_split,
    pick_tiles,
)
from genzoo.kernels.scan.triton_launch import (
    ABSENT,
    allocate,
    chunk_ends,
    gate_arguments,
    gradient_buffers,
    num_blocks,
    pointers_and_strides,
    reduce_slots,
    scratch_states,
    tile_arguments,
    tuning_key,
)
from genzoo.kernels.triton_host import (
    dense_rows,
    empty_like,
    given,
    strides,
    zeros_like,
)

JOIN_BLOCK = 1024


def run_scan(
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    softplus: bool,
    reverse: bool,
    training: bool,
    last_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One direction or both; `reverse` is that of the first. Returns the fields of `Results`."""
    scans, z = unpack(tensors, present)
    u, A, both = scans[0].u, scans[0].A, len(scans) == 2
    results = allocate(u, A, both=both, gated=z is not None, training=training, last_state=last_state)
    if not u.numel():
        return tuple(results)  # type: ignore[return-value]
    split = pick_split(len(u), u.shape[1], u.shape[2], u.device)
    flags = {"REVERSE": reverse, "BOTH": both, "SOFTPLUS": softplus}
    y_first = torch.empty(u.shape, dtype=torch.float32, device=u.device) if both else None
    outputs = (results.out, y_first, given(results.y_kept))

    def launch(tiles: Tiles) -> None:
        first = pointers_and_strides(scans[0], given(results.last_state), given(results.saved))
        second = pointers_and_strides(scans[1], None, given(results.saved_b)) if both else ABSENT
        if (split.apart and both) or split.num_chunks(u.shape[1]) > 1:
            _launch_apart(scans, z, outputs, (first, second), split, tiles, flags)
            return
        grid = (num_blocks(u.shape[2], tiles) * len(u),)
        triton_host.kernel("scan.triton_forward", "forward_kernel")[grid](
            *first,
            *second,
            *gate_arguments(z),
            outputs,
            *u.shape[1:],
            A.shape[1],
            **flags,
            **tile_arguments(tiles, A.shape[1]),
        )

    key = ("forward", *tuning_key(scans[0], both, training, split))
    with triton_host.on_device(u):
        launch(pick_tiles(key, forward_tiles(padded_state(A.shape[1])), launch))
    return tuple(results)  # type: ignore[return-value]


scan_op = torch.library.custom_op("genzoo::triton_selective_scan", run_scan, mutates_args=())


def _launch_apart(
    scans: Sequence[Scan],
    z: Tensor | None,
    outputs: tuple[Tensor, Tensor | None, Tensor | None],
    arguments: tuple[Any, Any],
    split: Split,
    tiles: Tiles,
    flags: dict[str, bool],
) -> None:
    """The forward of few programs: the ends of all chunks, the scan, and the sum of two directions."""
    u, d_state = scans[0].u, scans[0].A.shape[1]
    batch, length, width = u.shape
    chunks, blocks = split.num_chunks(length), num_blocks(width, tiles)
    sizes = (split.steps or length, length, width, d_state)
    ends = [chunk_ends(scan, chunks) if chunks > 1 else None for scan in scans] + [None]
    paired = (*arguments[0], ends[0], *arguments[1], ends[1])
    constants = tile_arguments(tiles, d_state)
    if chunks > 1:
        grid = (blocks * (chunks - 1) * batch, len(scans))
        triton_host.kernel("scan.triton_split", "chunk_states_kernel")[grid](
            *paired, *sizes, **flags, **constants
        )
    gate, y_second = gate_arguments(z), None if outputs[1] is None else torch.empty_like(outputs[1])
    triton_host.kernel("scan.triton_split", "forward_chunks_kernel")[(blocks * chunks * batch, len(scans))](
        *paired, *gate, outputs, y_second, *sizes, **flags, SPLIT=chunks > 1, **constants
    )
    if y_second is not None:
        rest = {"BLOCK": JOIN_BLOCK, "num_warps": 4, "enable_fp_fusion": True}
        triton_host.kernel("scan.triton_split", "join_kernel")[(-(-u.numel() // JOIN_BLOCK),)](
            outputs, y_second, *gate, u.numel(), length, width, **rest
        )


@scan_op.register_fake
def _(
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    softplus: bool,
    reverse: bool,
    training: bool,
    last_state: bool,
) -> tuple[Tensor, ...]:
    scans, z = unpack(tensors, present)
    both, gated = len(scans) == 2, z is not None
    u, A = scans[0].u, scans[0].A
    return tuple(allocate(u, A, both=both, gated=gated, training=training, last_state=last_state))


def gradients_alone(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    y_kept: Tensor,
    saved: Tensor,
    saved_b: Tensor,
    softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """The gradients of `tensors`, in their order."""
    return gradients(grad_out, tensors, present, y_kept, saved, saved_b, softplus, reverse)


gradient_op = torch.library.custom_op(
    "genzoo::triton_selective_scan_backward", gradients_alone, mutates_args=()
)


def gradients(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    y_kept: Tensor,
    saved: Tensor,
    saved_b: Tensor,
    softplus: bool,
    reverse: bool,
    *,
    beside: bool = False,
) -> list[Tensor]:
    """As `gradient_op`; with `beside` that of z, a half of a tensor, is a `second_half`."""
    if not grad_out.numel():
        return [zeros_like(tensor) for tensor in tensors]
    scans, z = unpack(tensors, present)
    grad_z = None if z is None else (second_half if beside else empty_like)(z)
    grad_out, (gate, gate_strides) = dense_rows(grad_out), gate_arguments(z)
    batch, length, width = scans[0].u.shape
    d_state, both = scans[0].A.shape[1], len(scans) == 2
    split = pick_split(batch, length, width, grad_out.device)
    chunks, steps = split.num_chunks(length), split.steps or length
    flags = {"REVERSE": reverse, "BOTH": both, "SOFTPLUS": softplus}
    buffers: list[tuple[Tensor | None, ...]] = []

    def launch(tiles: Tiles) -> None:
        buffers.clear()
        buffers.extend(gradient_buffers(scan, tiles, chunks) for scan in scans)
        arguments = [
            pointers_and_strides(scan, states, scratch_states(scan, tiles, chunks))
            for scan, states in zip(scans, (saved, saved_b), strict=False)
        ]
        arguments += [] if both else [ABSENT]
        ends = [chunk_ends(scan, chunks) if chunks > 1 else None for scan in scans] + [None]
        through = (grad_out, strides(grad_out), (gate, given(y_kept), grad_z), gate_strides)
        blocks, constants = num_blocks(width, tiles), tile_arguments(tiles, d_state)
        if chunks > 1:
            grid = (blocks * (chunks - 1) * batch, len(scans))
            triton_host.kernel("scan.triton_split", "chunk_adjoints_kernel")[grid](
                *arguments[0],
                ends[0],
                *arguments[1],
                ends[1],
                *through,
                steps,
                length,
                width,
                d_state,
                **flags,
                **constants,
            )
        triton_host.kernel("scan.triton_backward", "backward_kernel")[(blocks * chunks * batch, len(scans))](
            *arguments[0],
            buffers[0],
            *arguments[1],
            buffers[1] if both else (None,) * len(buffers[0]),
            *through,
            ends[0],
            ends[1],
            steps,
            batch,
            length,
            width,
            d_state,
            **flags,
            BESIDE=beside,
            SPLIT=chunks > 1,
            **constants,
        )

    key = ("backward", *tuning_key(scans[0], both, split))
    with triton_host.on_device(grad_out):
        launch(pick_tiles(key, backward_tiles(padded_state(d_state)), launch))
        found = reduce_slots(scans, buffers)
    return found if grad_z is None else [*found, grad_z]


@gradient_op.register_fake
def _(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    y_kept: Tensor,
    saved: Tensor,
    saved_b: Tensor,
    softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    return [empty_like(tensor) for tensor in tensors]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, ctx.present, *options = inputs
    ctx.options = options[:2]
    ctx.beside = ctx.present[-1] and has_room(tensors[-1])
    _, y_kept, _, saved, saved_b = output
    ctx.save_for_backward(y_kept, saved, saved_b, *tensors)
    ctx.set_materialize_grads(False)  # of the states nobody asks for


def _backward(ctx: Any, grad_out: Tensor, *unused: Tensor) -> tuple[list[Tensor] | None, ...]:
    y_kept, saved, saved_b, *tensors = ctx.saved_tensors
    arguments = (grad_out, tensors, ctx.present, y_kept, saved, saved_b, *ctx.options)
    found = gradients(*arguments, beside=True) if ctx.beside else differentiate(*arguments)
    return found, None, None, None, None, None


differentiate = Direct(gradient_op, gradients_alone)
scan = Direct(scan_op, run_scan, backward=_backward, setup_context=_setup_context, differentiable=1)
