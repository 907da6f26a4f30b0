"""The Triton kernel behind all partial sums: every gradient of an operation from its slots, in one launch."""

# mypy: disallow-untyped-decorators=False
# triton.jit carries no types
from __future__ import annotations

import triton
import triton.language as tl

from genzoo.kernels.triton_host import interpreted

# Triton itself looks when a kernel is decorated
INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def rounded(x: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """float32 to another type, to the nearest: Triton's interpreter cuts the lower half of a bfloat16 off."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, nearest.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def _sum_one(source: tl.tensor, target: tl.tensor, shape: tl.tensor, BLOCK: tl.constexpr) -> None:
    total_size, slots, size, outer_stride, slot_stride = shape
    here = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = here < total_size
    address = source + here // size * outer_stride + here % size
    total = tl.zeros([BLOCK], tl.float32)
    for _ in range(slots):
        total += tl.load(address, mask=valid, other=0.0).to(tl.float32)
        address += slot_stride
    tl.store(target + here, rounded(total, target.dtype.element_ty), mask=valid)


@triton.jit
def sum_slots_kernel(
    sources: tl.tensor, targets: tl.tensor, shapes: tl.tensor, NUMBER: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    """targets[i] = sum over the second axis of sources[i] in float32, slot after slot; cast to the target.

    sources: (outer, slots, size) each, the last axis dense.   shapes: (outer * size, slots, size, outer
    stride, slot stride).   Grid: (blocks of the longest target, NUMBER).
    """
    for i in tl.static_range(NUMBER):
        if tl.program_id(1) == i and tl.program_id(0) * BLOCK < shapes[i][0]:
            _sum_one(sources[i], targets[i], shapes[i], BLOCK)
