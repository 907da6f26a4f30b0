"""The backward Triton kernel: all gradients of one or both directions in one launch, states recomputed."""

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
    over_states,
    pick_row,
    run_tile,
    scan_adjoint,
    state_offsets,
    step_size,
    sum_channels,
)
from genzoo.kernels.triton_sums import rounded


@triton.jit
def through_gate(
    grad: tl.tensor,
    here: tl.tensor,
    gate_here: tl.tensor,
    valid: tl.tensor,
    gate: tl.tensor,
    GATE_GRADIENT: tl.constexpr,
    BESIDE: tl.constexpr,
) -> tl.tensor:
    """Gradient of y from that of out = y silu(z); stores the gradient of z, with BESIDE in rows like z's."""
    z, y_kept, grad_z = gate
    if z is not None:
        z_tile = load_float(z + gate_here, valid)
        sigma = logistic(z_tile)
        if GATE_GRADIENT:
            grad_gate = grad * load_float(y_kept + here, valid) * sigma * (1.0 + z_tile * (1.0 - sigma))
            grad_z += gate_here if BESIDE else here
            tl.store(grad_z, rounded(grad_gate, grad_z.dtype.element_ty), mask=valid)
        grad = grad * (z_tile * sigma)
    return grad


@triton.jit
def _save_tile_states(
    tensors: tl.tensor,
    strides: tl.tensor,
    parameters: tl.tensor,
    place: tl.tensor,
    cells: tl.tensor,
    state: tl.tensor,
    scratch: tl.tensor,
    segment_start: tl.tensor,
    num_tiles: tl.tensor,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Write the state before each tile of a segment to the program's part of `scratch`; it stays in cache."""
    page_size, cell, in_cell = cells
    rows = tl.arange(0, ROWS)
    tl.debug_barrier()  # nobody may still read the previous segment
    for tile in range(num_tiles - 1):
        tl.store(scratch + tile * page_size + cell, state, mask=in_cell)
        step = segment_start + tile * ROWS
        h, _, _, _, _, _ = run_tile(
            tensors, strides, parameters, place, step, state, REVERSE, SOFTPLUS, STATES, ROWS
        )
        state = pick_row(h, (rows == ROWS - 1)[:, None, None, None])
    tl.store(scratch + (num_tiles - 1) * page_size + cell, state, mask=in_cell)
    tl.debug_barrier()


@triton.jit
def _backward_tile(
    tensors: tl.tensor,
    strides: tl.tensor,
    parameters: tl.tensor,
    place: tl.tensor,
    grads: tl.tensor,
    grad_out: tl.tensor,
    grad_strides: tl.tensor,
    gate: tl.tensor,
    z_strides: tl.tensor,
    step: tl.tensor,
    state: tl.tensor,
    adjoint_after: tl.tensor,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    GATE_GRADIENT: tl.constexpr,
    BESIDE: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Store the gradients of u, delta, B, C of one tile; return its adjoint and parts of those of A, D, bias.

    adjoint_t = C_t g_t + a_{t+1} adjoint_{t+1};   the decay of the following step is computed anew from the
    delta one row further, which is cheaper than moving a tile by one row between threads.
    """
    u, delta, B, C = tensors
    u_strides, delta_strides, B_strides, C_strides = strides
    rate, A_cell, skip, shift = parameters
    batch, channels, length, width, d_state = place
    grad_u, grad_delta, grad_B, grad_C = grads
    rows, states = tl.arange(0, ROWS), tl.arange(0, STATES)
    in_rows, in_width, in_states = step + rows < length, channels < width, states < d_state
    valid = in_rows[:, None, None] & in_width[None, :, :]
    valid_next = (step + 1 + rows < length)[:, None, None] & in_width[None, :, :]
    in_C = in_rows[:, None] & in_states[None, :]
    delta_next = channel_offsets(batch, step + 1, length, rows, channels, delta_strides, REVERSE)
    C_here = state_offsets(batch, step, length, rows, states, C_strides, REVERSE)
    here = channel_offsets(batch, step, length, rows, channels, dense_strides(length, width), REVERSE)
    states_here = state_offsets(batch, step, length, rows, states, dense_strides(length, d_state), REVERSE)
    gate_here = channel_offsets(batch, step, length, rows, channels, z_strides, REVERSE)
    grad_here = channel_offsets(batch, step, length, rows, channels, grad_strides, REVERSE)
    raw_next = load_float(delta + delta_next, valid_next)
    C_tile = load_float(C + C_here, in_C)
    grad = load_float(grad_out + grad_here, valid)
    grad = through_gate(grad, here, gate_here, valid, gate, GATE_GRADIENT, BESIDE)

    h, memory, B_tile, u_tile, raw, dt = run_tile(
        (u, delta, B), (u_strides, delta_strides, B_strides), (rate, shift), place, step, state,
        REVERSE, SOFTPLUS, STATES, ROWS,
    )  # fmt: skip
    part_C = sum_channels(h * over_states(grad))
    tl.store(grad_C + states_here, rounded(part_C, grad_C.dtype.element_ty), mask=in_C)
    decay_next = tl.exp2(over_states(step_size(raw_next, shift, valid_next, SOFTPLUS)) * rate[None, :, :, :])
    is_last = (rows == ROWS - 1)[:, None, None, None]
    adjoint = scan_adjoint(decay_next, over_channels(C_tile) * over_states(grad), adjoint_after, is_last)
    part_B = sum_channels(adjoint * over_states(dt * u_tile))
    tl.store(grad_B + states_here, rounded(part_B, grad_B.dtype.element_ty), mask=in_C)

    through_decay = adjoint * memory
    to_drive = tl.sum(adjoint * over_channels(B_tile), axis=2)
    grad_dt = tl.sum(A_cell[None, :, :, :] * through_decay, axis=2) + u_tile * to_drive
    if SOFTPLUS:
        grad_dt *= logistic(raw + shift[None, :, :])
    grad_dt = tl.where(valid, grad_dt, 0.0)
    grad_input = dt * to_drive + skip[None, :, :] * grad
    tl.store(grad_u + here, grad_input.to(grad_u.dtype.element_ty), mask=valid)
    tl.store(grad_delta + here, grad_dt.to(grad_delta.dtype.element_ty), mask=valid)
    part_A = tl.sum(over_states(dt) * through_decay, axis=0)
    adjoint_first = pick_row(adjoint, (rows == 0)[:, None, None, None])
    return adjoint_first, part_A, tl.sum(grad * u_tile, axis=0), tl.sum(grad_dt, axis=0)


@triton.jit
def _backward_direction(
    tensors: tl.tensor,
    strides: tl.tensor,
    grads: tl.tensor,
    grad_out: tl.tensor,
    grad_strides: tl.tensor,
    gate: tl.tensor,
    z_strides: tl.tensor,
    block: tl.tensor,
    num_samples: tl.tensor,
    place: tl.tensor,
    chunk: tl.tensor,
    steps: tl.tensor,
    ends: tl.tensor,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    GATE_GRADIENT: tl.constexpr,
    BESIDE: tl.constexpr,
    SPLIT: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
    SEGMENT: tl.constexpr,
) -> None:
    """Walk segments and tiles from the last to the first: h forwards from saved states, adjoint backwards.

    With SPLIT only those of `chunk`; the adjoint that enters it from behind follows from `ends`.
    """
    u, delta, A, B, C, D, bias, checkpoints, scratch = tensors
    u_strides, delta_strides, B_strides, _ = strides
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_bias = grads
    batch, channels, length, width, d_state = place
    states = tl.arange(0, STATES)
    in_width = channels < width
    cell = channels[:, None, :] * d_state + states[None, :, None]
    in_cell = in_width[:, None, :] & (states < d_state)[None, :, None]
    A_cell = load_float(A + cell, in_cell)
    rate = A_cell * LOG2_E
    skip = load_optional(D, channels, channels, in_width)
    shift = load_optional(bias, channels, channels, in_width)
    page_size = width * d_state
    num_segments = tl.cdiv(length, SEGMENT)
    slot, first_segment, end_segment = batch, 0, num_segments
    partial = block.to(tl.int64) * num_samples * length * d_state
    adjoint = tl.zeros_like(rate)
    sum_A = tl.zeros_like(rate)
    sum_D = tl.zeros_like(skip)
    sum_bias = tl.zeros_like(skip)
    if SPLIT:
        chunks = tl.cdiv(length, steps)
        slot = batch * chunks + chunk
        first_segment = chunk * (steps // SEGMENT)
        end_segment = tl.minimum(first_segment + steps // SEGMENT, num_segments)
        around = (batch, chunk, chunks, width, page_size)
        adjoint = carry_over(adjoint, ends, around, channels, cell, in_cell, rate, True)
    scratch += slot * (SEGMENT // ROWS) * page_size
    for segments_done in range(end_segment - first_segment):
        segment = end_segment - 1 - segments_done
        start = segment * SEGMENT
        num_tiles = tl.cdiv(tl.minimum(length - start, SEGMENT), ROWS)
        state = load_float(checkpoints + (batch * num_segments + segment) * page_size + cell, in_cell)
        _save_tile_states(
            (u, delta, B), (u_strides, delta_strides, B_strides), (rate, shift), place,
            (page_size, cell, in_cell), state, scratch, start, num_tiles, REVERSE, SOFTPLUS, STATES, ROWS,
        )  # fmt: skip
        for tiles_done in range(num_tiles):
            tile = num_tiles - 1 - tiles_done
            state = load_float(scratch + tile * page_size + cell, in_cell)
            adjoint, part_A, part_D, part_bias = _backward_tile(
                (u, delta, B, C), strides, (rate, A_cell, skip, shift), place,
                (grad_u, grad_delta, grad_B + partial, grad_C + partial), grad_out, grad_strides,
                gate, z_strides, start + tile * ROWS, state, adjoint,
                REVERSE, SOFTPLUS, GATE_GRADIENT, BESIDE, STATES, ROWS,
            )  # fmt: skip
            sum_A += part_A
            sum_D += part_D
            sum_bias += part_bias
    tl.store(grad_A + slot * page_size + cell, sum_A, mask=in_cell)
    per_channel = slot * width + channels
    if grad_D is not None:
        tl.store(grad_D + per_channel, sum_D, mask=in_width)
    if grad_bias is not None:
        tl.store(grad_bias + per_channel, sum_bias, mask=in_width)


@triton.jit
def backward_kernel(
    first: tl.tensor,
    first_strides: tl.tensor,
    first_grads: tl.tensor,
    second: tl.tensor,
    second_strides: tl.tensor,
    second_grads: tl.tensor,
    grad_out: tl.tensor,
    grad_strides: tl.tensor,
    gate: tl.tensor,
    z_strides: tl.tensor,
    first_ends: tl.tensor,
    second_ends: tl.tensor,
    steps: tl.tensor,
    num_samples: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    d_state: tl.tensor,
    REVERSE: tl.constexpr,
    BOTH: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    BESIDE: tl.constexpr,
    SPLIT: tl.constexpr,
    STATES: tl.constexpr,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    SEGMENT: tl.constexpr,
) -> None:
    """Gradients of GROUPS * LANES channels of one chunk of one sample in one direction.

    Grid: (blocks * chunks * batch, directions); without SPLIT the whole length is one chunk.

    first, second: (u, delta, A, B, C, D, delta_bias, checkpoints, scratch).   gate: (z, y_kept, grad of z).
    grads: (u, delta: (b, l, d); A: (b * chunks, d, n); B, C: (blocks, b, l, n); D, delta_bias:
    (b * chunks, d)). Those of A, B, C, D and delta_bias are partial sums, one slot per program, added up
    afterwards: unlike atomics this gives the same bits in every run.
    """
    blocks = tl.cdiv(width, GROUPS * LANES)
    block, rest = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    chunks = tl.cdiv(length, steps)
    chunk, batch = rest % chunks, (rest // chunks).to(tl.int64)
    place = (batch, channel_index(block, GROUPS, LANES), length, width, d_state)
    if tl.program_id(1) == 0:
        _backward_direction(
            first, first_strides, first_grads, grad_out, grad_strides, gate, z_strides, block,
            num_samples, place, chunk, steps, first_ends,
            REVERSE, SOFTPLUS, True, BESIDE, SPLIT, STATES, ROWS, SEGMENT,
        )  # fmt: skip
    elif BOTH:
        _backward_direction(
            second, second_strides, second_grads, grad_out, grad_strides, gate, z_strides, block,
            num_samples, place, chunk, steps, second_ends,
            True, SOFTPLUS, False, False, SPLIT, STATES, ROWS, SEGMENT,
        )  # fmt: skip
