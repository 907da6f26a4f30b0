"""The Triton scan as a torch custom op, so that compile, autocast and autograd see one opaque function.

The ops take what `record.pack` makes of one or two scans and the gate: the tensors that are there, and which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels.scan.record import unpack
from genzoo.kernels.scan.triton_configs import (
    Tiles,
    backward_tiles,
    forward_tiles,
    padded_state,
    pick_tiles,
)
from genzoo.kernels.scan.triton_launch import (
    ABSENT,
    NO_STRIDES,
    allocate,
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
    kernel,
    on_device,
    strides,
    zeros_like,
)


@torch.library.custom_op("genzoo::triton_selective_scan", mutates_args=())
def scan_op(
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
    gate = None if z is None else dense_rows(z)
    batch, length, width = u.shape

    def launch(tiles: Tiles) -> None:
        first = pointers_and_strides(scans[0], given(results.last_state), given(results.saved))
        second = pointers_and_strides(scans[1], None, given(results.saved_b)) if both else ABSENT
        kernel("scan.triton_forward", "forward_kernel")[(num_blocks(width, tiles) * batch,)](
            *first,
            *second,
            gate,
            NO_STRIDES if gate is None else strides(gate),
            (results.out, given(results.y_sum)),
            length,
            width,
            A.shape[1],
            REVERSE=reverse,
            BOTH=both,
            SOFTPLUS=softplus,
            KEEP=training and z is not None,
            **tile_arguments(tiles, A.shape[1]),
        )

    key = ("forward", *tuning_key(scans[0], both, training))
    with on_device(u):
        launch(pick_tiles(key, forward_tiles(padded_state(A.shape[1])), launch))
    return tuple(results)  # type: ignore[return-value]


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


@torch.library.custom_op("genzoo::triton_selective_scan_backward", mutates_args=())
def gradient_op(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    y_sum: Tensor,
    saved: Tensor,
    saved_b: Tensor,
    softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """The gradients of `tensors`, in their order."""
    if not grad_out.numel():
        return [zeros_like(tensor) for tensor in tensors]
    scans, z = unpack(tensors, present)
    gate, grad_z = (None, None) if z is None else (dense_rows(z), empty_like(z))
    grad_out = dense_rows(grad_out)
    batch, length, width = scans[0].u.shape
    d_state = scans[0].A.shape[1]
    buffers: list[tuple[Tensor | None, ...]] = []

    def launch(tiles: Tiles) -> None:
        buffers.clear()
        arguments: list[Any] = []
        for scan, states in zip(scans, (saved, saved_b), strict=False):
            buffers.append(gradient_buffers(scan, tiles))
            arguments += [*pointers_and_strides(scan, states, scratch_states(scan, tiles)), buffers[-1]]
        if len(scans) == 1:
            arguments += [*ABSENT, (None,) * len(buffers[0])]
        kernel("scan.triton_backward", "backward_kernel")[(num_blocks(width, tiles) * batch, len(scans))](
            *arguments,
            grad_out,
            strides(grad_out),
            (gate, given(y_sum), grad_z),
            NO_STRIDES if gate is None else strides(gate),
            batch,
            length,
            width,
            d_state,
            REVERSE=reverse,
            BOTH=len(scans) == 2,
            SOFTPLUS=softplus,
            **tile_arguments(tiles, d_state),
        )

    key = ("backward", *tuning_key(scans[0], len(scans) == 2))
    with on_device(grad_out):
        launch(pick_tiles(key, backward_tiles(padded_state(d_state)), launch))
    gradients = [g for scan, slots in zip(scans, buffers, strict=True) for g in reduce_slots(scan, slots)]
    return [gradient for gradient in (*gradients, grad_z) if gradient is not None]


@gradient_op.register_fake
def _(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    y_sum: Tensor,
    saved: Tensor,
    saved_b: Tensor,
    softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    return [empty_like(tensor) for tensor in tensors]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, ctx.present, *options = inputs
    ctx.options = options[:2]
    _, y_sum, _, saved, saved_b = output
    ctx.save_for_backward(y_sum, saved, saved_b, *tensors)


def _backward(ctx: Any, grad_out: Tensor, *unused: Tensor) -> tuple[list[Tensor] | None, ...]:
    y_sum, saved, saved_b, *tensors = ctx.saved_tensors
    found = gradient_op(grad_out, tensors, ctx.present, y_sum, saved, saved_b, *ctx.options)
    return found, None, None, None, None, None


torch.library.register_autograd(scan_op, _backward, setup_context=_setup_context)
