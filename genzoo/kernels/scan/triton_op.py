"""The Triton scan as a torch custom op, so that compile, autocast and autograd see one opaque function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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
    Direction,
    allocate,
    dense_rows,
    empty_like,
    given,
    kernel,
    num_blocks,
    on_device,
    scratch_states,
    strides,
    tile_arguments,
    tuning_key,
)

NUM_TENSORS = 15


@torch.library.custom_op("genzoo::triton_selective_scan", mutates_args=())
def scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    u_b: Tensor | None,
    delta_b: Tensor | None,
    A_b: Tensor | None,
    B_b: Tensor | None,
    C_b: Tensor | None,
    D_b: Tensor | None,
    delta_bias_b: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    training: bool,
    last_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One direction, or with u_b both; `reverse` is that of the first. Returns the fields of `Results`."""
    first, second = _directions(
        [u, delta, A, B, C, D, z, delta_bias, u_b, delta_b, A_b, B_b, C_b, D_b, delta_bias_b]
    )
    both = second is not None
    results = allocate(u, A, both=both, gated=z is not None, training=training, last_state=last_state)
    gate = None if z is None else dense_rows(z)
    batch, length, width = u.shape

    def launch(tiles: Tiles) -> None:
        pointers, steps = first.arguments(given(results.last_state), given(results.saved))
        pointers_b, steps_b = ABSENT if second is None else second.arguments(None, given(results.saved_b))
        kernel("triton_forward", "forward_kernel")[(num_blocks(width, tiles) * batch,)](
            pointers,
            steps,
            pointers_b,
            steps_b,
            gate,
            NO_STRIDES if gate is None else strides(gate),
            (results.out, given(results.y_sum)),
            length,
            width,
            A.shape[1],
            REVERSE=reverse,
            BOTH=both,
            SOFTPLUS=delta_softplus,
            KEEP=training and z is not None,
            **tile_arguments(tiles, A.shape[1]),
        )

    key = ("forward", *tuning_key(first, both, training))
    with on_device(u):
        launch(pick_tiles(key, forward_tiles(padded_state(A.shape[1])), launch))
    return tuple(results)  # type: ignore[return-value]


@scan_op.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    u_b: Tensor | None,
    delta_b: Tensor | None,
    A_b: Tensor | None,
    B_b: Tensor | None,
    C_b: Tensor | None,
    D_b: Tensor | None,
    delta_bias_b: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    training: bool,
    last_state: bool,
) -> tuple[Tensor, ...]:
    both, gated = u_b is not None, z is not None
    return tuple(allocate(u, A, both=both, gated=gated, training=training, last_state=last_state))


@torch.library.custom_op("genzoo::triton_selective_scan_backward", mutates_args=())
def gradient_op(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    y_sum: Tensor,
    saved: Tensor,
    saved_b: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Gradients of those of the fifteen tensors of `scan_op` that are `present`, in their order."""
    placed = _spread(tensors, present)
    first, second = _directions(placed)
    z = placed[6]
    gate, grad_z = (None, None) if z is None else (dense_rows(z), empty_like(z))
    grad_out = dense_rows(grad_out)
    batch, length, width = first.u.shape
    d_state = first.A.shape[1]
    buffers: list[tuple[Tensor | None, ...]] = []

    def launch(tiles: Tiles) -> None:
        buffers.clear()
        arguments: list[Any] = []
        for direction, states in ((first, saved), (second, saved_b)):
            if direction is None:
                arguments += [*ABSENT, (None,) * 7]
                continue
            buffers.append(direction.gradient_buffers(tiles))
            arguments += [*direction.arguments(states, scratch_states(direction, tiles)), buffers[-1]]
        kernel("triton_backward", "backward_kernel")[(num_blocks(width, tiles) * batch, len(buffers))](
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
            BOTH=second is not None,
            SOFTPLUS=delta_softplus,
            **tile_arguments(tiles, d_state),
        )

    key = ("backward", *tuning_key(first, second is not None))
    with on_device(grad_out):
        launch(pick_tiles(key, backward_tiles(padded_state(d_state)), launch))
    gradients = first.reduce(buffers[0])
    gradients.insert(6, grad_z)
    gradients += [] if second is None else second.reduce(buffers[1])
    return [gradient for gradient in gradients if gradient is not None]


@gradient_op.register_fake
def _(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    y_sum: Tensor,
    saved: Tensor,
    saved_b: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    return [empty_like(tensor) for tensor in tensors]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, (delta_softplus, reverse, *_) = inputs[:NUM_TENSORS], inputs[NUM_TENSORS:]
    _, y_sum, _, saved, saved_b = output
    ctx.present = [tensor is not None for tensor in tensors]
    ctx.options = (delta_softplus, reverse)
    ctx.save_for_backward(y_sum, saved, saved_b, *[tensor for tensor in tensors if tensor is not None])


def _backward(ctx: Any, grad_out: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    y_sum, saved, saved_b, *tensors = ctx.saved_tensors
    found = gradient_op(grad_out, tensors, ctx.present, y_sum, saved, saved_b, *ctx.options)
    return (*_spread(found, ctx.present), None, None, None, None)


torch.library.register_autograd(scan_op, _backward, setup_context=_setup_context)


def _directions(tensors: Sequence[Any]) -> tuple[Direction, Direction | None]:
    """The fifteen tensors, less z, as one or two directions."""
    u, delta, A, B, C, D, _, bias, u_b, delta_b, A_b, B_b, C_b, D_b, bias_b = tensors
    first = Direction(u, delta, A, B, C, D, bias)
    return first, None if u_b is None else Direction(u_b, delta_b, A_b, B_b, C_b, D_b, bias_b)


def _spread(tensors: Sequence[Tensor], present: Sequence[bool]) -> list[Tensor | None]:
    """The tensors at their places, None at the others."""
    remaining = iter(tensors)
    return [next(remaining) if here else None for here in present]
