"""The scan of few samples and channels: a program for each direction and each chunk of the length.

A diagonal recurrence composes: with E what a chunk makes of a zero state and T the sum of its dt,

    H_0 = 0,   H_{c+1} = exp(T_c A) H_c + E_c                       the state that enters chunk c + 1
    L_last = M_last,   L_c = M_c + exp(T'_c A) L_{c+1}              the adjoint of the first step of chunk c

so a first pass finds E and T (M and T') of all chunks at once, and the second is the ordinary scan, whose
programs work out their own start (`triton_tiles.carry_over`). T' sums the dt of the steps after those of the
chunk: adjoint_t = C_t g_t + a_{t+1} adjoint_{t+1}.
"""

# mypy: disallow-untyped-decorators=False
# triton.jit carries no types
from __future__ import annotations

import triton
import triton.language as tl

from genzoo.kernels.scan.triton_backward import through_gate
from genzoo.kernels.scan.triton_forward import scan_direction
from genzoo.kernels.scan.triton_tiles import (
    LOG2_E,
    channel_index,
    channel_offsets,
    dense_strides,
    load_float,
    load_optional,
    logistic,
    over_channels,
    over_states,
    pick_row,
    run_tile,
    scan_adjoint,
    state_offsets,
    step_size,
)
from genzoo.kernels.triton_sums import rounded


@triton.jit
def _place(
    chunks: tl.tensor, width: tl.tensor, GROUPS: tl.constexpr, LANES: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """(channels, number among `chunks`, sample as int64) of this program."""
    blocks = tl.cdiv(width, GROUPS * LANES)
    rest = tl.program_id(0) // blocks
    channels = channel_index(tl.program_id(0) % blocks, GROUPS, LANES)
    return channels, rest % chunks, (rest // chunks).to(tl.int64)


@triton.jit
def _cells(
    A: tl.tensor, channels: tl.tensor, width: tl.tensor, d_state: tl.tensor, STATES: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Offsets of (d, n) cells, which of them exist, and their decay rates in base 2."""
    states = tl.arange(0, STATES)
    cell = channels[:, None, :] * d_state + states[None, :, None]
    in_cell = (channels < width)[:, None, :] & (states < d_state)[None, :, None]
    return cell, in_cell, load_float(A + cell, in_cell) * LOG2_E


@triton.jit
def _store_ends(
    ends: tl.tensor,
    number: tl.tensor,
    total: tl.tensor,
    own: tl.tensor,
    channels: tl.tensor,
    cells: tl.tensor,
    width: tl.tensor,
    d_state: tl.tensor,
) -> None:
    sums, owns = ends
    cell, in_cell, _ = cells
    tl.store(sums + number * width + channels, total, mask=channels < width)
    tl.store(owns + number * width * d_state + cell, own, mask=in_cell)


@triton.jit
def _chunk_state(
    tensors: tl.tensor,
    strides: tl.tensor,
    ends: tl.tensor,
    place: tl.tensor,
    chunk: tl.tensor,
    steps: tl.tensor,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """E and T of a chunk."""
    # by index: a name such as _ would be carried by the loop, and change its type there
    u, delta, A, B, bias = tensors[0], tensors[1], tensors[2], tensors[3], tensors[6]
    u_strides, delta_strides, B_strides = strides[0], strides[1], strides[2]
    batch, channels, length, width, d_state = place
    cells = _cells(A, channels, width, d_state, STATES)
    shift = load_optional(bias, channels, channels, channels < width)
    state = tl.zeros_like(cells[2])
    total = tl.zeros_like(shift)
    for tile in range(steps // ROWS):
        h, _, _, _, _, dt = run_tile(
            (u, delta, B), (u_strides, delta_strides, B_strides), (cells[2], shift), place,
            chunk * steps + tile * ROWS, state, REVERSE, SOFTPLUS, STATES, ROWS,
        )  # fmt: skip
        state = pick_row(h, (tl.arange(0, ROWS) == ROWS - 1)[:, None, None, None])
        total += tl.sum(dt, axis=0)
    number = batch * tl.cdiv(length, steps) + chunk
    _store_ends(ends, number, total, state, channels, cells, width, d_state)


@triton.jit
def chunk_states_kernel(
    first: tl.tensor,
    first_strides: tl.tensor,
    first_ends: tl.tensor,
    second: tl.tensor,
    second_strides: tl.tensor,
    second_ends: tl.tensor,
    steps: tl.tensor,
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
    """First pass of the forward, over all chunks but the last.

    Grid: (blocks * (chunks - 1) * batch, directions).
    """
    channels, chunk, batch = _place(tl.cdiv(length, steps) - 1, width, GROUPS, LANES)
    place = (batch, channels, length, width, d_state)
    if tl.program_id(1) == 0:
        _chunk_state(first, first_strides, first_ends, place, chunk, steps, REVERSE, SOFTPLUS, STATES, ROWS)
    elif BOTH:
        _chunk_state(second, second_strides, second_ends, place, chunk, steps, True, SOFTPLUS, STATES, ROWS)


@triton.jit
def forward_chunks_kernel(
    first: tl.tensor,
    first_strides: tl.tensor,
    first_ends: tl.tensor,
    second: tl.tensor,
    second_strides: tl.tensor,
    second_ends: tl.tensor,
    z: tl.tensor,
    z_strides: tl.tensor,
    outputs: tl.tensor,
    y_second: tl.tensor,
    steps: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    d_state: tl.tensor,
    REVERSE: tl.constexpr,
    BOTH: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    SPLIT: tl.constexpr,
    STATES: tl.constexpr,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    SEGMENT: tl.constexpr,
) -> None:
    """Second pass of the forward; grid (blocks * chunks * batch, directions).

    Two directions leave their sums apart, in outputs[1] and y_second, for `join_kernel`; one gates its own.
    """
    channels, chunk, batch = _place(tl.cdiv(length, steps), width, GROUPS, LANES)
    if tl.program_id(1) == 0:
        scan_direction(
            first, first_strides, z, z_strides, outputs, batch, channels, length, width, d_state,
            chunk, steps, first_ends, REVERSE, SOFTPLUS, False, not BOTH, SPLIT, STATES, ROWS, SEGMENT,
        )  # fmt: skip
    elif BOTH:
        scan_direction(
            second, second_strides, z, z_strides, (outputs[0], y_second, None), batch, channels, length,
            width, d_state, chunk, steps, second_ends, True, SOFTPLUS, False, False, SPLIT, STATES, ROWS,
            SEGMENT,
        )  # fmt: skip


@triton.jit
def join_kernel(
    outputs: tl.tensor,
    y_second: tl.tensor,
    z: tl.tensor,
    z_strides: tl.tensor,
    size: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """out = (y_first + y_second) silu(z), and the sum itself where it is kept; BLOCK values of (b, l, d)."""
    out, y_first, y_kept = outputs
    here = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = here < size
    y = load_float(y_first + here, valid) + load_float(y_second + here, valid)
    if y_kept is not None:
        tl.store(y_kept + here, rounded(y, y_kept.dtype.element_ty), mask=valid)
    if z is not None:
        row = here // width
        gate_here = row // length * z_strides[0] + row % length * z_strides[1] + here % width
        gate = load_float(z + gate_here, valid)
        y *= gate * logistic(gate)
    tl.store(out + here, y.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _chunk_adjoint(
    tensors: tl.tensor,
    strides: tl.tensor,
    ends: tl.tensor,
    grad_out: tl.tensor,
    grad_strides: tl.tensor,
    gate: tl.tensor,
    z_strides: tl.tensor,
    place: tl.tensor,
    chunk: tl.tensor,
    steps: tl.tensor,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """M and T' of a chunk: the walk of `triton_backward` without states and without gradients."""
    delta, A, C, bias = tensors[1], tensors[2], tensors[4], tensors[6]
    delta_strides, C_strides = strides[1], strides[3]
    batch, channels, length, width, d_state = place
    cells = _cells(A, channels, width, d_state, STATES)
    rows, states, in_width = tl.arange(0, ROWS), tl.arange(0, STATES), channels < width
    shift = load_optional(bias, channels, channels, in_width)
    adjoint = tl.zeros_like(cells[2])
    total = tl.zeros_like(shift)
    num_tiles = tl.cdiv(tl.minimum(length - chunk * steps, steps), ROWS)
    for tiles_done in range(num_tiles):
        step = chunk * steps + (num_tiles - 1 - tiles_done) * ROWS
        valid = (step + rows < length)[:, None, None] & in_width[None, :, :]
        valid_next = (step + 1 + rows < length)[:, None, None] & in_width[None, :, :]
        in_C = (step + rows < length)[:, None] & (states < d_state)[None, :]
        here = channel_offsets(batch, step, length, rows, channels, dense_strides(length, width), REVERSE)
        gate_here = channel_offsets(batch, step, length, rows, channels, z_strides, REVERSE)
        grad_here = channel_offsets(batch, step, length, rows, channels, grad_strides, REVERSE)
        next_here = channel_offsets(batch, step + 1, length, rows, channels, delta_strides, REVERSE)
        C_here = state_offsets(batch, step, length, rows, states, C_strides, REVERSE)
        grad = through_gate(
            load_float(grad_out + grad_here, valid), here, gate_here, valid, gate, False, False
        )
        dt_next = step_size(load_float(delta + next_here, valid_next), shift, valid_next, SOFTPLUS)
        C_tile = load_float(C + C_here, in_C)
        drive = over_channels(C_tile) * over_states(grad)
        decay = tl.exp2(over_states(dt_next) * cells[2][None, :, :, :])
        adjoint = scan_adjoint(decay, drive, adjoint, (rows == ROWS - 1)[:, None, None, None])
        adjoint = pick_row(adjoint, (rows == 0)[:, None, None, None])
        total += tl.sum(dt_next, axis=0)
    number = batch * tl.cdiv(length, steps) + chunk
    _store_ends(ends, number, total, adjoint, channels, cells, width, d_state)


@triton.jit
def chunk_adjoints_kernel(
    first: tl.tensor,
    first_strides: tl.tensor,
    first_ends: tl.tensor,
    second: tl.tensor,
    second_strides: tl.tensor,
    second_ends: tl.tensor,
    grad_out: tl.tensor,
    grad_strides: tl.tensor,
    gate: tl.tensor,
    z_strides: tl.tensor,
    steps: tl.tensor,
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
    """First pass of the backward, over all chunks but the first.

    Grid: (blocks * (chunks - 1) * batch, directions).
    """
    channels, chunk, batch = _place(tl.cdiv(length, steps) - 1, width, GROUPS, LANES)
    place = (batch, channels, length, width, d_state)
    if tl.program_id(1) == 0:
        _chunk_adjoint(
            first, first_strides, first_ends, grad_out, grad_strides, gate, z_strides, place, chunk + 1,
            steps, REVERSE, SOFTPLUS, STATES, ROWS,
        )  # fmt: skip
    elif BOTH:
        _chunk_adjoint(
            second, second_strides, second_ends, grad_out, grad_strides, gate, z_strides, place, chunk + 1,
            steps, True, SOFTPLUS, STATES, ROWS,
        )  # fmt: skip
