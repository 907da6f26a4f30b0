"""The Triton kernel of GELU's gradient (tanh form), which also sums it over rows, for the bias before it."""

# mypy: disallow-untyped-decorators=False
# triton.jit carries no types
from __future__ import annotations

import triton
import triton.language as tl

from genzoo.kernels.scan.triton_tiles import load_float, logistic

SQRT_8_OVER_PI, CUBIC = tl.constexpr(1.5957691216057308), tl.constexpr(0.044715)


@triton.jit
def backward_kernel(
    x: tl.tensor,
    grad: tl.tensor,
    dx: tl.tensor,
    slots: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """x, grad, dx: (rows, width), dense.   slots: (chunks, width) float32, sums of dx over CHUNK rows each.

    y = x s(p), p = sqrt(8 / pi) (x + 0.044715 x^3), s the logistic function. Grid: (column blocks * chunks,).
    """
    blocks = tl.cdiv(width, COLUMNS)
    columns = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    chunk = (tl.program_id(0) // blocks).to(tl.int64)
    in_width = columns < width
    total = tl.zeros([COLUMNS], tl.float32)
    for step in range(CHUNK // ROWS):
        row = chunk * CHUNK + step * ROWS + tl.arange(0, ROWS)
        valid = (row < rows)[:, None] & in_width[None, :]
        here = row[:, None] * width + columns[None, :]
        value = load_float(x + here, valid)
        cubic = value * value * CUBIC
        s = logistic(value * SQRT_8_OVER_PI * (1.0 + cubic))
        slope = s * (1.0 + value * SQRT_8_OVER_PI * (1.0 - s) * (1.0 + 3.0 * cubic))
        found = load_float(grad + here, valid) * slope
        tl.store(dx + here, found.to(dx.dtype.element_ty), mask=valid)
        total += tl.sum(found, axis=0)
    tl.store(slots + chunk * width + columns, total, mask=in_width)
