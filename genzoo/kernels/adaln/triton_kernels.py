"""The two Triton kernels of the gated residual and the modulated norm; the package says the formulas.

A row lies in one program as a whole, so that the variance is a second pass over registers: the mean of
squares less the square of the mean loses the digits of rows far from zero.
"""

# mypy: disallow-untyped-decorators=False
# triton.jit carries no types
from __future__ import annotations

import triton
import triton.language as tl

from genzoo.kernels.scan.triton_tiles import load_float


@triton.jit
def _row_of(number: tl.tensor, length: tl.tensor, strides: tl.tensor, columns: tl.tensor) -> tl.tensor:
    """Offsets of row `number` (int64) of a (b, l, d) tensor."""
    return number // length * strides[0] + number % length * strides[1] + columns


@triton.jit
def forward_kernel(
    x: tl.tensor,
    x_strides: tl.tensor,
    parameters: tl.tensor,
    parameter_strides: tl.tensor,
    outputs: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    rows_per_condition: tl.tensor,
    eps: tl.tensor,
    COLUMNS: tl.constexpr,
) -> None:
    """One row.   parameters: (gate, branch, shift, scale), outputs: (x1, out, mean, r); None where absent.

    parameter_strides: row strides of gate, shift and scale, and in the place of branch its two strides.
    """
    gate, branch, shift, scale = parameters
    gate_stride, branch_strides, shift_stride, scale_stride = parameter_strides
    x1, out, mean_out, r_out = outputs
    number = tl.program_id(0).to(tl.int64)
    condition = number // rows_per_condition
    columns = tl.arange(0, COLUMNS)
    valid = columns < width
    here = number * width + columns
    values = load_float(x + _row_of(number, length, x_strides, columns), valid)
    if gate is not None:
        opened = load_float(gate + condition * gate_stride + columns, valid)
        values += opened * load_float(branch + _row_of(number, length, branch_strides, columns), valid)
        tl.store(x1 + here, values.to(x1.dtype.element_ty), mask=valid)
    if shift is not None:
        mean = tl.sum(values, axis=0) / width
        centred = tl.where(valid, values - mean, 0.0)
        r = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / width + eps)
        factor = 1.0 + load_float(scale + condition * scale_stride + columns, valid)
        normed = centred * r * factor + load_float(shift + condition * shift_stride + columns, valid)
        tl.store(out + here, normed.to(out.dtype.element_ty), mask=valid)
        tl.store(mean_out + number, mean)
        tl.store(r_out + number, r)


@triton.jit
def backward_kernel(
    grads: tl.tensor,
    grad_strides: tl.tensor,
    saved: tl.tensor,
    x1_strides: tl.tensor,
    parameters: tl.tensor,
    parameter_strides: tl.tensor,
    outputs: tl.tensor,
    slots: tl.tensor,
    length: tl.tensor,
    width: tl.tensor,
    rows_per_condition: tl.tensor,
    GATE: tl.constexpr,
    NORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """ROWS rows of one condition.   grads: of (x1, out).   saved: (x1, mean, r).   parameters: as forward.

    outputs: (dx, dbranch).   slots: (conditions * chunks, gate | shift and scale, width) float32, one for
    each program, added up afterwards: unlike atomics this gives the same bits in every run.
    """
    grad_x1, grad_out = grads
    grad_x1_strides, grad_out_strides = grad_strides
    x1, mean, r = saved
    gate, branch, _, scale = parameters
    gate_stride, branch_strides, _, scale_stride = parameter_strides
    dx, dbranch = outputs
    chunks = tl.cdiv(rows_per_condition, ROWS)
    condition = (tl.program_id(0) // chunks).to(tl.int64)
    first = tl.program_id(0) % chunks * ROWS
    columns = tl.arange(0, COLUMNS)
    valid = columns < width
    sum_gate = tl.zeros([COLUMNS], tl.float32)
    sum_shift = tl.zeros([COLUMNS], tl.float32)
    sum_scale = tl.zeros([COLUMNS], tl.float32)
    if GATE:
        opened = load_float(gate + condition * gate_stride + columns, valid)
    if NORM:
        factor = 1.0 + load_float(scale + condition * scale_stride + columns, valid)
    for step in range(tl.minimum(rows_per_condition - first, ROWS)):
        number = condition * rows_per_condition + first + step
        here = number * width + columns
        total = tl.zeros([COLUMNS], tl.float32)
        if NORM:
            g = load_float(grad_out + _row_of(number, length, grad_out_strides, columns), valid)
            values = load_float(x1 + _row_of(number, length, x1_strides, columns), valid)
            scale_r = tl.load(r + number)
            h = tl.where(valid, (values - tl.load(mean + number)) * scale_r, 0.0)
            sum_shift += g
            sum_scale += g * h
            dn = g * factor
            total = scale_r * (dn - tl.sum(dn, axis=0) / width - h * (tl.sum(dn * h, axis=0) / width))
        if grad_x1 is not None:
            total += load_float(grad_x1 + _row_of(number, length, grad_x1_strides, columns), valid)
        if dx is not None:
            tl.store(dx + here, total.to(dx.dtype.element_ty), mask=valid)
        if GATE:
            part = load_float(branch + _row_of(number, length, branch_strides, columns), valid)
            sum_gate += total * part
            tl.store(dbranch + here, (opened * total).to(dbranch.dtype.element_ty), mask=valid)
    slots += tl.program_id(0).to(tl.int64) * width * (GATE + 2 * NORM) + columns
    if GATE:
        tl.store(slots, sum_gate, mask=valid)
        slots += width
    if NORM:
        tl.store(slots, sum_shift, mask=valid)
        tl.store(slots + width, sum_scale, mask=valid)
