"""What the two Triton kernels of the selective scan share: tiles, the scan inside registers, softplus.

How the scan is laid out, and why (written for Hopper, where sixteen exponentials per element are the bound):

* Sequential over time in tiles of ROWS steps; parallel over batch, channel blocks and, in the backward,
  directions. A chunked parallel scan over the length would pay a second exponential per element to stitch the
  chunks together, and with d_inner in the thousands there are enough channel blocks to fill the device.
* A tile is (ROWS, GROUPS, STATES, LANES); one program owns GROUPS * LANES channels with all of their states.
  Triton hands the lanes of a warp to the last axes first, so LANES and a part of STATES fill the warp and the
  time axis stays inside one thread: `associative_scan` along it is then one fused multiply-add per step,
  without shuffles, and sums over states and channels are mostly additions of registers.
* Whole tiles are loaded at once, so the loads of a step never wait for the recurrence.
* exp(dt A) is exp2(dt (A log2 e)): one multiplication and one special-function instruction.
* Everything is converted to float32 right after loading, also because Triton's CPU interpreter
  computes bf16 arithmetic on raw bits.
"""

# mypy: disallow-untyped-decorators=False
# triton.jit carries no types
from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def channel_index(block: tl.tensor, GROUPS: tl.constexpr, LANES: tl.constexpr) -> tl.tensor:
    """Channel numbers of a program, (GROUPS, LANES)."""
    first = block * GROUPS * LANES
    return first + tl.arange(0, GROUPS)[:, None] * LANES + tl.arange(0, LANES)[None, :]


@triton.jit
def first_row(
    batch: tl.tensor, step: tl.tensor, length: tl.tensor, strides: tl.tensor, REVERSE: tl.constexpr
) -> tl.tensor:
    """Offset of scan step `step`; with the sign of the row offsets all that reverse changes.

    int64, because batch * length * width passes 2^31 for long videos; offsets inside a tile stay int32.
    """
    row = length - 1 - step if REVERSE else step
    return batch * strides[0] + tl.cast(row, tl.int64) * strides[1]


@triton.jit
def dense_strides(length: tl.tensor, width: tl.tensor) -> tuple[tl.tensor, ...]:
    """Of batch and row of a dense (b, l, d) tensor; one sample alone may pass 2^31 values."""
    return tl.cast(length, tl.int64) * width, width


@triton.jit
def channel_offsets(
    batch: tl.tensor,
    step: tl.tensor,
    length: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    strides: tl.tensor,
    REVERSE: tl.constexpr,
) -> tl.tensor:
    """Offsets of a (ROWS, GROUPS, LANES) tile of a channels-last tensor, its rows in scan order."""
    down = -rows * strides[1] if REVERSE else rows * strides[1]
    return first_row(batch, step, length, strides, REVERSE) + (down[:, None, None] + channels[None, :, :])


@triton.jit
def state_offsets(
    batch: tl.tensor,
    step: tl.tensor,
    length: tl.tensor,
    rows: tl.tensor,
    states: tl.tensor,
    strides: tl.tensor,
    REVERSE: tl.constexpr,
) -> tl.tensor:
    """Offsets of a (ROWS, STATES) tile of B or C, its rows in scan order."""
    down = -rows * strides[1] if REVERSE else rows * strides[1]
    return first_row(batch, step, length, strides, REVERSE) + (down[:, None] + states[None, :])


@triton.jit
def load_float(address: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """Load, 0 where masked, as float32."""
    return tl.load(address, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_optional(address: tl.tensor, like: tl.tensor, offsets: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """A per-channel vector, or zeros shaped as `like` when the caller gave none."""
    vector = tl.zeros_like(like).to(tl.float32)
    if address is not None:
        vector = load_float(address + offsets, mask)
    return vector


@triton.jit
def over_channels(tile: tl.tensor) -> tl.tensor:
    """(ROWS, STATES) to (ROWS, 1, STATES, 1)."""
    return tl.expand_dims(tl.expand_dims(tile, 1), 3)


@triton.jit
def over_states(tile: tl.tensor) -> tl.tensor:
    """(ROWS, GROUPS, LANES) to (ROWS, GROUPS, 1, LANES)."""
    return tl.expand_dims(tile, 2)


@triton.jit
def sum_channels(tile: tl.tensor) -> tl.tensor:
    """(ROWS, GROUPS, STATES, LANES) to (ROWS, STATES); groups first, for they sit in one thread."""
    return tl.sum(tl.sum(tile, axis=1), axis=2)


@triton.jit
def _log1p(x: tl.tensor) -> tl.tensor:
    """log(1 + x) for x in [0, 1], relative error 2e-7: 2 artanh(s) with s = x / (2 + x) <= 1/3, seven terms.

    1 + x is never formed, so that dt of 1e-4 keeps all its digits.
    """
    s = x / (2.0 + x)
    q = s * s
    series = 1.0 / 11.0 + q * (1.0 / 13.0)
    series = 1.0 / 7.0 + q * (1.0 / 9.0 + q * series)
    return 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * series)))


@triton.jit
def step_size(raw: tl.tensor, bias: tl.tensor, valid: tl.tensor, SOFTPLUS: tl.constexpr) -> tl.tensor:
    """dt of a (ROWS, GROUPS, LANES) tile; 0 outside the sequence, where the state must stay as it is."""
    shifted = raw + bias[None, :, :]
    if SOFTPLUS:
        shifted = tl.maximum(shifted, 0.0) + _log1p(tl.exp2(tl.abs(shifted) * -LOG2_E))
    return tl.where(valid, shifted, 0.0)


@triton.jit
def logistic(x: tl.tensor) -> tl.tensor:
    """1 / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives the correct 0."""
    return 1.0 / (1.0 + tl.exp2(x * -LOG2_E))


@triton.jit
def _compose(
    decay_1: tl.tensor, input_1: tl.tensor, decay_2: tl.tensor, input_2: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    return decay_2 * decay_1, decay_2 * input_1 + input_2


@triton.jit
def _compose_with_memory(
    decay_1: tl.tensor,
    input_1: tl.tensor,
    memory_1: tl.tensor,
    decay_2: tl.tensor,
    input_2: tl.tensor,
    memory_2: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    kept = decay_2 * input_1
    return decay_2 * decay_1, kept + input_2, kept + memory_2


@triton.jit
def scan_states(
    decay: tl.tensor, drive: tl.tensor, carry: tl.tensor, first: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """h_t = decay_t h_{t-1} + drive_t along axis 0, from `carry` before the row `first`; and decay_t h_{t-1}.

    The carry is folded into the first row, so the running product of the decays is never needed and is
    compiled away. h_t - drive_t would equal decay_t h_{t-1}, but cancels where little is remembered.
    """
    memory = tl.where(first, decay * carry[None, :, :, :], 0.0)
    _, h, memory = tl.associative_scan((decay, drive + memory, memory), 0, _compose_with_memory)
    return h, memory


@triton.jit
def scan_adjoint(decay: tl.tensor, drive: tl.tensor, carry: tl.tensor, last: tl.tensor) -> tl.tensor:
    """x_t = decay_t x_{t+1} + drive_t along axis 0, from `carry` after the row `last`.

    Flips inside a thread only rename registers; associative_scan's own `reverse` shuffles every value.
    """
    drive = tl.where(last, drive + decay * carry[None, :, :, :], drive)
    _, x = tl.associative_scan((tl.flip(decay, 0), tl.flip(drive, 0)), 0, _compose)
    return tl.flip(x, 0)


@triton.jit
def pick_row(tile: tl.tensor, chosen: tl.tensor) -> tl.tensor:
    """The one row of a tile where `chosen` is true.

    xor of the bit patterns instead of a sum: x ^ 0 is x, so the compiler makes a register move of it.
    """
    bits = tl.where(chosen, tile.to(tl.int32, bitcast=True), 0)
    return tl.xor_sum(bits, axis=0).to(tl.float32, bitcast=True)


@triton.jit
def carry_over(
    state: tl.tensor,
    ends: tl.tensor,
    around: tl.tensor,
    channels: tl.tensor,
    cell: tl.tensor,
    in_cell: tl.tensor,
    rate: tl.tensor,
    BACKWARD: tl.constexpr,
) -> tl.tensor:
    """What enters a chunk: every chunk before it (BACKWARD: after it), in turn, decays it and adds its own.

    ends: (sums of dt (chunks, d), what the chunk makes of zero (chunks, d, n)), for all samples.
    around: (batch, this chunk, chunks of a sample, width, page_size). One exponential for each chunk.
    """
    sums, own = ends
    batch, chunk, chunks, width, page_size = around
    for done in range(chunks - 1 - chunk if BACKWARD else chunk):
        number = batch * chunks + (chunks - 1 - done if BACKWARD else done)
        total = load_float(sums + number * width + channels, channels < width)
        added = load_float(own + number * page_size + cell, in_cell)
        state = tl.exp2(tl.expand_dims(total, 1) * rate) * state + added
    return state


@triton.jit
def run_tile(
    tensors: tl.tensor,
    strides: tl.tensor,
    parameters: tl.tensor,
    place: tl.tensor,
    step: tl.tensor,
    state: tl.tensor,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """States of one tile from `state`, and what they were made of: h, decay_t h_{t-1}, B, u, delta, dt.

    tensors, strides: of u, delta, B.   parameters: (rate, shift), the decay rates in base 2 and delta_bias.
    place: (batch, channels, length, width, d_state).
    """
    u, delta, B = tensors
    u_strides, delta_strides, B_strides = strides
    rate, shift = parameters
    batch, channels, length, width, d_state = place
    rows, states = tl.arange(0, ROWS), tl.arange(0, STATES)
    in_rows = step + rows < length
    valid = in_rows[:, None, None] & (channels < width)[None, :, :]
    u_here = channel_offsets(batch, step, length, rows, channels, u_strides, REVERSE)
    delta_here = channel_offsets(batch, step, length, rows, channels, delta_strides, REVERSE)
    B_here = state_offsets(batch, step, length, rows, states, B_strides, REVERSE)
    u_tile = load_float(u + u_here, valid)
    raw = load_float(delta + delta_here, valid)
    B_tile = load_float(B + B_here, in_rows[:, None] & (states < d_state)[None, :])
    dt = step_size(raw, shift, valid, SOFTPLUS)
    drive = over_states(dt * u_tile) * over_channels(B_tile)
    decay = tl.exp2(over_states(dt) * rate[None, :, :, :])
    h, memory = scan_states(decay, drive, state, (rows == 0)[:, None, None, None])
    return h, memory, B_tile, u_tile, raw, dt
