"""Turning tensors into the integers that the C entry points read."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from genzoo.kernels.native import build
from genzoo.kernels.tracing import constant_when_traced

SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
# below this many multiply-adds the threads cost more than they bring
WORK_PER_THREAD = 1 << 17
# as numpy does for its large arrays
LARGE, PAGE, MADV_HUGEPAGE = 1 << 22, 1 << 12, 14


@constant_when_traced
def unavailable_reason() -> str | None:
    """Why the kernels cannot be compiled or loaded, or None."""
    return build.unavailable_reason()


def is_eager(x: Tensor) -> bool:
    """Whether x is an ordinary tensor with memory, not one that is traced or transformed."""
    # a trace by example holds ordinary tensors, and would keep the numbers that C made of them
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return type(x) in (Tensor, torch.nn.Parameter) and not torch._C._are_functorch_transforms_active()


def is_fake(x: Tensor) -> bool:
    """Whether x has a shape alone, to count what a step would take, and no compiler traces it."""
    return not torch.compiler.is_compiling() and isinstance(x, FakeTensor)


def real_dtype(x: Tensor) -> torch.dtype:
    """The precision a kernel computes in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def readable(x: Tensor, real: torch.dtype) -> Tensor:
    """x as the kernels can read it: `real` or bfloat16, unit stride along the channels. Mostly x itself."""
    if x.dtype != real and not (x.dtype == torch.bfloat16 and real == torch.float32):
        x = x.to(real)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """torch.empty, on large pages where it is large: fresh small pages cost more than a scan of them."""
    x = torch.empty(shape, dtype=dtype)
    if x.nbytes >= LARGE and _madvise() is not None:
        start = -(-x.data_ptr() // PAGE) * PAGE
        size = (x.data_ptr() + x.nbytes - start) // PAGE * PAGE
        _madvise()(
            ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_HUGEPAGE
        )  # advice: refusal is harmless
    return x


@cache
def _madvise() -> Any:
    return ctypes.CDLL(None).madvise if sys.platform == "linux" else None


def vector(x: Tensor | None, real: torch.dtype) -> Tensor | None:
    """A parameter as a dense array in the computing precision."""
    return None if x is None else x.detach().to(real).contiguous()


def describe(x: Tensor | None) -> tuple[int, int, int, int]:
    """address, batch stride, row stride, type of a (b, l, d) tensor."""
    if x is None:
        return (0, 0, 0, 0)
    return (x.data_ptr(), x.stride(0), x.stride(1), int(x.dtype == torch.bfloat16))


def address(x: Tensor | None) -> int:
    """Zero stands for an absent array."""
    return 0 if x is None else x.data_ptr()


def invoke(name: str, real: torch.dtype, arguments: Iterable[int], work: int) -> None:
    """Call an entry point, on as many threads as torch would use and the work is worth."""
    values = list(arguments)
    threads = max(1, min(torch.get_num_threads(), work // WORK_PER_THREAD))
    _function(name, real)((ctypes.c_int64 * len(values))(*values), ctypes.c_int64(threads))


@cache
def _function(name: str, real: torch.dtype) -> Any:
    return getattr(build.load(SUFFIX[real]), f"{name}_{SUFFIX[real]}")


@cache
def scan_sizes(real: torch.dtype) -> tuple[int, int, int]:
    """Channels of a block, blocks of a group, steps of a tile."""
    sizes = (ctypes.c_int64 * 3)()
    _function("genzoo_scan_sizes", real)(sizes)
    return sizes[0], sizes[1], sizes[2]
