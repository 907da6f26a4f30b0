"""What the forward and the backward Triton kernel of the selective scan share: tiles, the in-register scan, softplus.

How the scan is laid out, and why (written for Hopper, where sixteen exponentials per element are the bound):

* Sequential over time in tiles of ROWS steps; parallel over (batch, channel block, and in the backward direction).
  A chunked parallel scan over the length would pay a second exponential per element to stitch chunks together,
  and with d_inner in the thousands there are enough channel blocks to fill the device.
* A tile is (ROWS, GROUPS, STATES, LANES); one program owns GROUPS * LANES channels with all of their states.
  Triton hands the lanes of a warp to the last axes first, so with one warp LANES * (a part of STATES) fills the
  warp and the time axis stays inside one thread: `associative_scan` along it is then ROWS fused multiply-adds
  without a shuffle, and sums over states and channels are mostly register adds.
* Whole tiles are loaded at once, so the loads of a step never wait for the recurrence.
* exp(dt A) is exp2(dt (A log2 e)): one multiplication and one special-function instruction.
* Everything is converted to float32 right after loading, also because Triton's CPU interpreter
  computes bf16 arithmetic on raw bits.
"""

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
    """Offset of scan step `step`: the only place where the reverse direction differs, so nothing is ever flipped.

    int64, because batch * length * width passes 2^31 for long videos; offsets inside a tile stay int32.
    """
    row = length - 1 - step if REVERSE else step
    return batch.to(tl.int64) * strides[0] + row.to(tl.int64) * strides[1]


@triton.jit
def row_offsets(rows: tl.tensor, strides: tl.tensor, REVERSE: tl.constexpr) -> tl.tensor:
    """Offsets of the rows of a tile from its first step, (ROWS,)."""
    return -rows * strides[1] if REVERSE else rows * strides[1]


@triton.jit
def channel_offsets(
    rows: tl.tensor, channels: tl.tensor, strides: tl.tensor, REVERSE: tl.constexpr
) -> tl.tensor:
    """Offsets of a (ROWS, GROUPS, LANES) tile of a channels-last tensor from its first step."""
    return row_offsets(rows, strides, REVERSE)[:, None, None] + channels[None, :, :]


@triton.jit
def state_offsets(rows: tl.tensor, states: tl.tensor, strides: tl.tensor, REVERSE: tl.constexpr) -> tl.tensor:
    """Offsets of a (ROWS, STATES) tile of B or C from its first step."""
    return row_offsets(rows, strides, REVERSE)[:, None] + states[None, :]


@triton.jit
def over_channels(tile: tl.tensor) -> tl.tensor:
    """(ROWS, STATES) to (ROWS, 1, STATES, 1)."""
    return tl.expand_dims(tl.expand_dims(tile, 1), 3)


@triton.jit
def over_states(tile: tl.tensor) -> tl.tensor:
    """(ROWS, GROUPS, LANES) to (ROWS, GROUPS, 1, LANES)."""
    return tl.expand_dims(tile, 2)


@triton.jit
def step_size(raw: tl.tensor, bias: tl.tensor, valid: tl.tensor, SOFTPLUS: tl.constexpr) -> tl.tensor:
    """dt of a (ROWS, GROUPS, LANES) tile; 0 outside the sequence, where the state must stay as it is."""
    shifted = raw + bias[None, :, :]
    if SOFTPLUS:
        # log1p by the quotient that cancels the rounding of 1 + x: dt of 1e-4 keeps all its digits
        x = tl.exp(-tl.abs(shifted))
        w = 1.0 + x
        log1p = tl.where(w == 1.0, x, tl.log(w) * (x / tl.where(w == 1.0, 1.0, w - 1.0)))
        shifted = tl.maximum(shifted, 0.0) + log1p
    return tl.where(valid, shifted, 0.0)


@triton.jit
def logistic(x: tl.tensor) -> tl.tensor:
    """1 / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives the correct 0."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _compose(
    decay_1: tl.tensor, input_1: tl.tensor, decay_2: tl.tensor, input_2: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    return decay_2 * decay_1, decay_2 * input_1 + input_2


@triton.jit
def scan_tile(
    decay: tl.tensor, drive: tl.tensor, carry: tl.tensor, first: tl.tensor, BACKWARDS: tl.constexpr
) -> tl.tensor:
    """h_t = decay_t h_{t-1} + drive_t along axis 0, starting from `carry` before the row where `first` is true.

    The carry is folded into that row, so the running product of the decays is never needed and is compiled away.
    """
    drive = tl.where(first, drive + decay * carry[None, :, :, :], drive)
    _, h = tl.associative_scan((decay, drive), 0, _compose, reverse=BACKWARDS)
    return h


@triton.jit
def pick_row(tile: tl.tensor, chosen: tl.tensor) -> tl.tensor:
    """The one row of a tile where `chosen` is true.

    xor of the bit patterns instead of a sum: x ^ 0 is x exactly, so the compiler reduces it to a register move.
    """
    bits = tl.where(chosen, tile.to(tl.int32, bitcast=True), 0)
    return tl.xor_sum(bits, axis=0).to(tl.float32, bitcast=True)
