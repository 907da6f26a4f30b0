"""The forward Triton kernel: one launch for one direction, or for both directions, their sum and the gate."""

# mypy: disallow-untyped-decorators=False
# triton.jit carries no types
from __future__ import annotations

import triton
import triton.language as tl

from genzoo.kernels.scan.triton_tiles import (
    LOG2_E,
    carry_over,
    channel_index,
    channel_offsets,
    dense_strides,
    load_float,
    load_optional,
    logistic,
    over_channels,
    pick_row,
    run_tile,
    state_offsets,
)
from genzoo.kernels.triton_sums import rounded


@triton.jit
def _emit(
    y: tl.tensor,
    place: tl.tensor,
    step: tl.tensor,
    outputs: tl.tensor,
    z: tl.tensor,
    z_strides: tl.tensor,
    REVERSE: tl.constexpr,
    ADD: tl.constexpr,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Add the other direction, gate and store one (ROWS, GROUPS, LANES) tile.

    The first direction waits in float32 (`y_first`): in bf16 the sum would be rounded twice. y: the sum, for
    the gradient of the gate; it is read once more, and may be bf16.
    """
    out, y_first, y_kept = outputs
    batch, channels, length, width, _ = place
    rows = tl.arange(0, ROWS)
    valid = (step + rows < length)[:, None, None] & (channels < width)[None, :, :]
    here = channel_offsets(batch, step, length, rows, channels, dense_strides(length, width), REVERSE)
    if ADD:
        y += load_float(y_first + here, valid)
    if LAST:
        if y_kept is not None:
            tl.store(y_kept + here, rounded(y, y_kept.dtype.element_ty), mask=valid)
        if z is not None:
            gate_here = channel_offsets(batch, step, length, rows, channels, z_strides, REVERSE)
            gate = load_float(z + gate_here, valid)
            y *= gate * logistic(gate)
        tl.store(out + here, y.to(out.dtype.element_ty), mask=valid)
    else:
        tl.store(y_first + here, y, mask=valid)


@triton.jit
def scan_direction(
    tensors: tl.tensor,
    strides: tl.tensor,
    z: tl.tensor,
    z_strides: tl.tensor,
    outputs: tl.tensor,
    batch: tl.tensor,
    channels: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    d_state: tl.tensor,
    chunk: tl.tensor,
    steps: tl.tensor,
    ends: tl.tensor,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    ADD: tl.constexpr,
    LAST: tl.constexpr,
    SPLIT: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
    SEGMENT: tl.constexpr,
) -> None:
    """The whole length, or with SPLIT the `steps` steps of `chunk`, whose start follows from `ends`."""
    u, delta, A, B, C, D, bias, last_state, checkpoints = tensors
    u_strides, delta_strides, B_strides, C_strides = strides
    rows, states = tl.arange(0, ROWS), tl.arange(0, STATES)
    in_width, in_states = channels < width, states < d_state
    cell = channels[:, None, :] * d_state + states[None, :, None]
    in_cell = in_width[:, None, :] & in_states[None, :, None]
    rate = load_float(A + cell, in_cell) * LOG2_E
    skip = load_optional(D, channels, channels, in_width)
    shift = load_optional(bias, channels, channels, in_width)
    place = (batch, channels, length, width, d_state)
    page_size = width * d_state
    num_segments = tl.cdiv(length, SEGMENT)
    state = tl.zeros_like(rate)
    first, end = 0, length
    if SPLIT:
        first = chunk * steps
        end = tl.minimum(first + steps, length)
        around = (batch, chunk, tl.cdiv(length, steps), width, page_size)
        state = carry_over(state, ends, around, channels, cell, in_cell, rate, False)
    for tile in range(first // ROWS, tl.cdiv(end, ROWS)):
        step = tile * ROWS
        if checkpoints is not None and step % SEGMENT == 0:
            # the backward recomputes the states of a segment from here, so (b, l, d, n) never exists
            page = (batch * num_segments + step // SEGMENT) * page_size
            tl.store(checkpoints + page + cell, state, mask=in_cell)
        C_here = state_offsets(batch, step, length, rows, states, C_strides, REVERSE)
        C_tile = load_float(C + C_here, (step + rows < length)[:, None] & in_states[None, :])
        h, _, _, u_tile, _, _ = run_tile(
            (u, delta, B), (u_strides, delta_strides, B_strides), (rate, shift), place, step, state,
            REVERSE, SOFTPLUS, STATES, ROWS,
        )  # fmt: skip
        state = pick_row(h, (rows == ROWS - 1)[:, None, None, None])
        y = tl.sum(h * over_channels(C_tile), axis=2) + skip[None, :, :] * u_tile
        _emit(y, place, step, outputs, z, z_strides, REVERSE, ADD, LAST, ROWS)
    if last_state is not None:
        tl.store(last_state + batch * page_size + cell, state, mask=in_cell & (end == length))


@triton.jit
def forward_kernel(
    first: tl.tensor,
    first_strides: tl.tensor,
    second: tl.tensor,
    second_strides: tl.tensor,
    z: tl.tensor,
    z_strides: tl.tensor,
    outputs: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    d_state: tl.tensor,
    REVERSE: tl.constexpr,
    BOTH: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    STATES: tl.constexpr,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    SEGMENT: tl.constexpr,
) -> None:
    """Scan GROUPS * LANES channels of one sample; with BOTH add the reverse scan of `second`, then gate.

    first, second: (u, delta, A, B, C, D, delta_bias, last_state, checkpoints), pointers or None.
    strides: (batch, row) strides of u, delta, B, C.   outputs: (out, y_first, y_kept).
    Grid: (blocks * batch,).

    One program does both directions, one after the other: the second finds the first one's sum in cache and
    finishes it, where two programs would need another launch to add and gate.
    """
    blocks = tl.cdiv(width, GROUPS * LANES)
    channels = channel_index(tl.program_id(0) % blocks, GROUPS, LANES)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    scan_direction(
        first, first_strides, z, z_strides, outputs, batch, channels, length, width, d_state,
        0, length, None, REVERSE, SOFTPLUS, False, not BOTH, False, STATES, ROWS, SEGMENT,
    )  # fmt: skip
    if BOTH:
        tl.debug_barrier()  # the sums of the first direction are read by other threads of this program
        scan_direction(
            second, second_strides, z, z_strides, outputs, batch, channels, length, width, d_state,
            0, length, None, True, SOFTPLUS, True, True, False, STATES, ROWS, SEGMENT,
        )  # fmt: skip
