"""The forward Triton kernel: one launch for one direction, or for both directions, their sum and the gate."""

from __future__ import annotations

import triton
import triton.language as tl

from genzoo.kernels.selective_scan.triton_tiles import (
    LOG2_E,
    channel_index,
    channel_offsets,
    first_row,
    logistic,
    over_channels,
    over_states,
    pick_row,
    scan_tile,
    state_offsets,
    step_size,
)


@triton.jit
def _emit(
    y: tl.tensor,
    here: tl.tensor,
    valid: tl.tensor,
    outputs: tl.tensor,
    z_here: tl.tensor,
    z_offsets: tl.tensor,
    ADD: tl.constexpr,
    LAST: tl.constexpr,
    KEEP: tl.constexpr,
) -> None:
    """Sum with the other direction, gate and store one (ROWS, GROUPS, LANES) tile.

    The sum of the directions waits in float32 (`y_sum`): in bf16 it would be rounded twice.
    """
    out, y_sum = outputs
    if ADD:
        y += tl.load(y_sum + here, mask=valid, other=0.0)
    if KEEP:
        tl.store(y_sum + here, y, mask=valid)
    if LAST:
        if z_here is not None:
            z = tl.load(z_here + z_offsets, mask=valid, other=0.0).to(tl.float32)
            y *= z * logistic(z)
        tl.store(out + here, y.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _scan_direction(
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
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    ADD: tl.constexpr,
    LAST: tl.constexpr,
    KEEP: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    u, delta, A, B, C, D, bias, last_state, checkpoints = tensors
    u_strides, delta_strides, B_strides, C_strides = strides
    rows, states = tl.arange(0, ROWS), tl.arange(0, STATES)
    in_width, in_states = channels < width, states < d_state
    cell = channels[:, None, :] * d_state + states[None, :, None]
    in_cell = in_width[:, None, :] & in_states[None, :, None]
    decay_rate = tl.load(A + cell, mask=in_cell, other=0.0).to(tl.float32) * LOG2_E
    skip = tl.zeros_like(channels).to(tl.float32)
    if D is not None:
        skip = tl.load(D + channels, mask=in_width, other=0.0).to(tl.float32)
    shift = tl.zeros_like(skip)
    if bias is not None:
        shift = tl.load(bias + channels, mask=in_width, other=0.0).to(tl.float32)
    is_first = (rows == 0)[:, None, None, None]
    is_last = (rows == ROWS - 1)[:, None, None, None]
    num_tiles = tl.cdiv(length, ROWS)
    state = tl.zeros_like(decay_rate)
    for tile in range(num_tiles):
        step = tile * ROWS
        in_rows = step + rows < length
        valid = in_rows[:, None, None] & in_width[None, :, :]
        in_B = in_rows[:, None] & in_states[None, :]
        u_here = u + first_row(batch, step, length, u_strides, REVERSE)
        delta_here = delta + first_row(batch, step, length, delta_strides, REVERSE)
        B_here = B + first_row(batch, step, length, B_strides, REVERSE)
        C_here = C + first_row(batch, step, length, C_strides, REVERSE)
        u_tile = tl.load(u_here + channel_offsets(rows, channels, u_strides, REVERSE), mask=valid, other=0.0)
        u_tile = u_tile.to(tl.float32)
        raw = tl.load(
            delta_here + channel_offsets(rows, channels, delta_strides, REVERSE), mask=valid, other=0.0
        )
        B_tile = tl.load(B_here + state_offsets(rows, states, B_strides, REVERSE), mask=in_B, other=0.0)
        C_tile = tl.load(C_here + state_offsets(rows, states, C_strides, REVERSE), mask=in_B, other=0.0)
        if checkpoints is not None:
            # the backward recomputes the states of a tile from here, so (b, l, d, n) never exists
            page = (batch.to(tl.int64) * num_tiles + tile) * width * d_state
            tl.store(checkpoints + page + cell, state, mask=in_cell)
        dt = step_size(raw.to(tl.float32), shift, valid, SOFTPLUS)
        decay = tl.exp2(over_states(dt) * decay_rate[None, :, :, :])
        drive = over_states(dt * u_tile) * over_channels(B_tile.to(tl.float32))
        h = scan_tile(decay, drive, state, is_first, False)
        state = pick_row(h, is_last)
        y = tl.sum(h * over_channels(C_tile.to(tl.float32)), axis=2) + skip[None, :, :] * u_tile
        y_strides = (length * width, width)
        here = first_row(batch, step, length, y_strides, REVERSE)
        here += channel_offsets(rows, channels, y_strides, REVERSE)
        z_here, z_offsets = None, None
        if z is not None:
            z_here = z + first_row(batch, step, length, z_strides, REVERSE)
            z_offsets = channel_offsets(rows, channels, z_strides, REVERSE)
        _emit(y, here, valid, outputs, z_here, z_offsets, ADD, LAST, KEEP)
    if last_state is not None:
        page = batch.to(tl.int64) * width * d_state
        tl.store(last_state + page + cell, state, mask=in_cell)


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
    KEEP: tl.constexpr,
    STATES: tl.constexpr,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Scan GROUPS * LANES channels of one sample; with BOTH, `second` runs in reverse and is added before the gate.

    first, second: (u, delta, A, B, C, D, delta_bias, last_state, checkpoints), pointers or None.
    strides: (batch, row) strides of u, delta, B, C.   outputs: (out, y_sum).   Grid: (channel blocks, batch).

    One program does both directions, one after the other: the second finds the first one's sum in cache and
    finishes it, where two programs would need a third launch to add and gate.
    """
    batch = tl.program_id(1)
    channels = channel_index(tl.program_id(0), GROUPS, LANES)
    _scan_direction(
        first, first_strides, z, z_strides, outputs, batch, channels, length, width, d_state,
        REVERSE, SOFTPLUS, False, not BOTH, BOTH or KEEP, STATES, ROWS,
    )  # fmt: skip
    if BOTH:
        tl.debug_barrier()  # the sums of the first direction are read by other threads of this program
        _scan_direction(
            second, second_strides, z, z_strides, outputs, batch, channels, length, width, d_state,
            True, SOFTPLUS, True, True, KEEP, STATES, ROWS,
        )  # fmt: skip
