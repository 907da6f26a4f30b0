"""The two Triton kernels of the convolution.

A program owns LANES channels of one sample and CHUNK rows. It walks down the rows and keeps the last few of x
in registers, in a tuple that loses its first value and gains one at each row: every row of x is loaded once
for all taps of both directions. With k taps and K = k - 1:

    past:     p[t] = bias + sum_j w[j] x[t - K + j]          future: p[t] = bias + sum_j w[j] x[t + K - j]
    out = p s(p),  dp = grad s(p) (1 + p (1 - s(p)))         s: the logistic function; without SiLU p and grad
    dx[t] = sum_j w[j] dp[t + K - j]                         future: dp[t - K + j]
    dw[j] = sum_t dp[t] x[t - K + j]                         future: x[t + K - j]
"""

# mypy: disallow-untyped-decorators=False, disable-error-code="assignment,misc"
# triton.jit carries no types, and its tuples grow
from __future__ import annotations

import triton
import triton.language as tl

from genzoo.kernels.scan.triton_tiles import load_float, logistic


@triton.jit
def place_of_program(
    length: tl.tensor, width: tl.tensor, LANES: tl.constexpr, CHUNK: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """(channels, first row, sample as int64, slot as int64) of this program.

    One flat axis, channels fastest: the other axes of a grid end at 65,535.
    """
    blocks, chunks = tl.cdiv(width, LANES), tl.cdiv(length, CHUNK)
    channels = tl.program_id(0) % blocks * LANES + tl.arange(0, LANES)
    slot = tl.program_id(0) // blocks
    return channels, slot % chunks * CHUNK, (slot // chunks).to(tl.int64), slot.to(tl.int64)


@triton.jit
def row_offset(batch: tl.tensor, row: tl.tensor, strides: tl.tensor) -> tl.tensor:
    """Offset of a row as int64: batch * length * width passes 2^31 for long videos."""
    return batch * strides[0] + tl.cast(row, tl.int64) * strides[1]


@triton.jit
def _load_row(
    tensor: tl.tensor,
    strides: tl.tensor,
    batch: tl.tensor,
    row: tl.tensor,
    channels: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
) -> tl.tensor:
    """One row as float32, zero outside the sequence."""
    inside = (channels < width) & (row >= 0) & (row < length)
    return load_float(tensor + row_offset(batch, row, strides) + channels, inside)


@triton.jit
def _load_taps(
    weight: tl.tensor, bias: tl.tensor, channels: tl.tensor, width: tl.tensor, TAPS: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """The taps as a tuple of rows, and the bias, zero where there is none."""
    taps = ()
    for j in tl.static_range(TAPS):
        taps = taps + (load_float(weight + channels * TAPS + j, channels < width),)
    offset = tl.zeros_like(taps[0])
    if bias is not None:
        offset = load_float(bias + channels, channels < width)
    return taps, offset


@triton.jit
def _dot(
    taps: tl.tensor, rows: tl.tensor, start: tl.tensor, FIRST: tl.constexpr, STEP: tl.constexpr,
    TAPS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """start + sum_j taps[j] rows[FIRST + STEP j]."""
    total = start
    for j in tl.static_range(TAPS):
        total += taps[j] * rows[FIRST + STEP * j]
    return total


@triton.jit
def _store_activated(
    out: tl.tensor, here: tl.tensor, p: tl.tensor, valid: tl.tensor, SILU: tl.constexpr
) -> None:
    if SILU:
        p *= logistic(p)
    tl.store(out + here, p.to(out.dtype.element_ty), mask=valid)


@triton.jit
def forward_kernel(
    x: tl.tensor,
    x_strides: tl.tensor,
    parameters: tl.tensor,
    outputs: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    SILU: tl.constexpr,
    PAST: tl.constexpr,
    FUTURE: tl.constexpr,
    TAPS: tl.constexpr,
    LANES: tl.constexpr,
    CHUNK: tl.constexpr,
    UNROLL: tl.constexpr,
) -> None:
    """parameters: (weight, bias, weight_b, bias_b), outputs: (out, out_b); pointers, None where absent."""
    weight, bias, weight_b, bias_b = parameters
    out, out_b = outputs
    BEHIND: tl.constexpr = TAPS - 1 if PAST else 0
    AHEAD: tl.constexpr = TAPS - 1 if FUTURE else 0
    channels, first, batch, _ = place_of_program(length, width, LANES, CHUNK)
    if PAST:
        taps, offset = _load_taps(weight, bias, channels, width, TAPS)
    if FUTURE:
        taps_b, offset_b = _load_taps(weight_b, bias_b, channels, width, TAPS)
    window = ()
    for i in tl.static_range(BEHIND + AHEAD):
        window = window + (_load_row(x, x_strides, batch, first - BEHIND + i, channels, length, width),)
    for step in tl.range(0, tl.minimum(length - first, CHUNK), loop_unroll_factor=UNROLL):
        row = first + step
        window = window + (_load_row(x, x_strides, batch, row + AHEAD, channels, length, width),)
        here = row_offset(batch, row, (tl.cast(length, tl.int64) * width, width)) + channels
        if PAST:
            _store_activated(out, here, _dot(taps, window, offset, 0, 1, TAPS), channels < width, SILU)
        if FUTURE:
            p_b = _dot(taps_b, window, offset_b, BEHIND + AHEAD, -1, TAPS)
            _store_activated(out_b, here, p_b, channels < width, SILU)
        window = window[1:]


@triton.jit
def _through_activation(grad: tl.tensor, p: tl.tensor, SILU: tl.constexpr) -> tl.tensor:
    """Gradient of p from that of out."""
    if SILU:
        sigma = logistic(p)
        grad = grad * sigma * (1.0 + p * (1.0 - sigma))
    return grad


@triton.jit
def _add_taps(
    sums: tl.tensor, dp: tl.tensor, rows: tl.tensor, FIRST: tl.constexpr, STEP: tl.constexpr,
    TAPS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """sums[j] + dp rows[FIRST + STEP j] for each tap, and sums[TAPS] + dp for the bias."""
    added = ()
    for j in tl.static_range(TAPS):
        added = added + (sums[j] + dp * rows[FIRST + STEP * j],)
    return added + (sums[TAPS] + dp,)


@triton.jit
def _zeros(LANES: tl.constexpr, NUMBER: tl.constexpr) -> tl.tensor:
    rows = ()
    for _ in tl.static_range(NUMBER):
        rows = rows + (tl.zeros([LANES], tl.float32),)
    return rows


@triton.jit
def _store_sums(
    slots: tl.tensor, sums: tl.tensor, channels: tl.tensor, width: tl.tensor, TAPS: tl.constexpr
) -> None:
    for j in tl.static_range(TAPS):
        tl.store(slots + channels * TAPS + j, sums[j], mask=channels < width)
    tl.store(slots + TAPS * width + channels, sums[TAPS], mask=channels < width)


@triton.jit
def backward_kernel(
    x: tl.tensor,
    x_strides: tl.tensor,
    parameters: tl.tensor,
    grads: tl.tensor,
    grad_strides: tl.tensor,
    dx: tl.tensor,
    dx_strides: tl.tensor,
    slots: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    SILU: tl.constexpr,
    PAST: tl.constexpr,
    FUTURE: tl.constexpr,
    TAPS: tl.constexpr,
    LANES: tl.constexpr,
    CHUNK: tl.constexpr,
    UNROLL: tl.constexpr,
) -> None:
    """grads: of (out, out_b).   slots: float32, of each program and direction (width, TAPS) and (width,).

    At row q the window holds x[q - K] to x[q]: those that p of the past at q needs, and p of the future at
    q - K. With the last k of either dp, dx at q - K is complete. Rows of a neighbour are visited for dx but
    not counted in the sums.
    """
    weight, bias, weight_b, bias_b = parameters
    grad, grad_b = grads
    grad_stride, grad_b_stride = grad_strides
    K: tl.constexpr = TAPS - 1
    channels, first, batch, slot = place_of_program(length, width, LANES, CHUNK)
    if PAST:
        taps, offset = _load_taps(weight, bias, channels, width, TAPS)
    if FUTURE:
        taps_b, offset_b = _load_taps(weight_b, bias_b, channels, width, TAPS)
    window = ()
    for i in tl.static_range(K):
        window = window + (_load_row(x, x_strides, batch, first - K + i, channels, length, width),)
    dp, dp_b = _zeros(LANES, K), _zeros(LANES, K)
    sums, sums_b = _zeros(LANES, TAPS + 1), _zeros(LANES, TAPS + 1)
    rows = tl.minimum(length - first, CHUNK)
    for step in tl.range(0, rows + K, loop_unroll_factor=UNROLL):
        row = first + step
        window = window + (_load_row(x, x_strides, batch, row, channels, length, width),)
        total = tl.zeros([LANES], tl.float32)
        if PAST:
            g = _load_row(grad, grad_stride, batch, row, channels, length, width)
            g = _through_activation(g, _dot(taps, window, offset, 0, 1, TAPS), SILU)
            dp = dp + (g,)
            total = _dot(taps, dp, total, K, -1, TAPS)
            dp = dp[1:]
            sums = _add_taps(sums, tl.where(step < rows, g, 0.0), window, 0, 1, TAPS)
        if FUTURE:
            g_b = _load_row(grad_b, grad_b_stride, batch, row - K, channels, length, width)
            g_b = _through_activation(g_b, _dot(taps_b, window, offset_b, K, -1, TAPS), SILU)
            dp_b = dp_b + (g_b,)
            total = _dot(taps_b, dp_b, total, 0, 1, TAPS)
            dp_b = dp_b[1:]
            sums_b = _add_taps(sums_b, tl.where(step >= K, g_b, 0.0), window, K, -1, TAPS)
        here = row_offset(batch, row - K, dx_strides) + channels
        tl.store(dx + here, total.to(dx.dtype.element_ty), mask=(channels < width) & (step >= K))
        window = window[1:]
    slots += slot * (TAPS + 1) * width * (2 if PAST and FUTURE else 1)
    if PAST:
        _store_sums(slots, sums, channels, width, TAPS)
        slots += (TAPS + 1) * width
    if FUTURE:
        _store_sums(slots, sums_b, channels, width, TAPS)
