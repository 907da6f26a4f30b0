"""What the host side of every Triton kernel needs; Triton itself is imported when a kernel first runs."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels.tracing import constant_when_traced

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SUM_BLOCK = 512


@constant_when_traced
def unavailable_reason() -> str | None:
    """Why no Triton kernel can run on this machine, or None."""
    missing = _missing()
    if missing is not None:
        return missing
    if interpreted() or torch.cuda.is_available():
        return None
    return "no CUDA device (TRITON_INTERPRET=1 runs it, very slowly, on the CPU)"


def unsupported_reason(tensors: Iterable[Tensor | None]) -> str | None:
    """Why these tensors cannot go to a Triton kernel, or None.

    CUDA tensors are proof enough of a device: asking the driver at every call would cost more than some do.
    """
    missing = _missing()
    if missing is not None:
        return missing
    there = [tensor for tensor in tensors if tensor is not None]
    if not interpreted() and not all(tensor.is_cuda for tensor in there):
        return unavailable_reason() or f"the tensors are on {there[0].device}, not on a CUDA device"
    wrong = sorted({str(tensor.dtype) for tensor in there if tensor.dtype not in DTYPES})
    return f"computes float32, bfloat16 and float16, not {', '.join(wrong)}" if wrong else None


@constant_when_traced
def interpreted() -> bool:
    """Whether Triton was asked to interpret its kernels, on any device."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@constant_when_traced
def _missing() -> str | None:
    return _import_problem()  # not decorated itself: tracing would step past the cache into the import


@functools.cache
def _import_problem() -> str | None:
    try:
        importlib.import_module("triton")
    except (ImportError, OSError) as error:
        return f"triton cannot be imported: {error}"
    return None


@functools.cache
def kernel(module: str, name: str) -> Any:
    """A kernel of a module below genzoo.kernels, imported on first use: backends must not need Triton."""
    return getattr(importlib.import_module(f"genzoo.kernels.{module}"), name)


def dense_rows(tensor: Tensor) -> Tensor:
    """As it is when its last axis is dense, whatever the other strides: halves of a tensor are not copied."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def strides(tensor: Tensor) -> tuple[int, int]:
    """Of batch and row."""
    return tensor.stride(0), tensor.stride(1)


def empty_like(tensor: Tensor) -> Tensor:
    """Contiguous whatever the layout of the model."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def zeros_like(tensor: Tensor) -> Tensor:
    """Contiguous zeros."""
    return torch.zeros_like(tensor, memory_format=torch.contiguous_format)


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def given(tensor: Tensor) -> Tensor | None:
    """None for the empty tensors that stand for absent outputs; kernels leave them out at compile time."""
    return tensor if tensor.numel() else None


def sum_slots(sources: Sequence[Tensor], likes: Sequence[Tensor]) -> list[Tensor]:
    """Partial sums added up in a fixed order: unlike atomics the same bits in every run.

    sources: (outer, slots, size), the last axis dense.   Returns one tensor like each of `likes`, of
    outer * size values, in one launch.
    """
    targets = [empty_like(like) for like in likes]
    shapes = tuple((t.numel(), *s.shape[1:], *s.stride()[:2]) for s, t in zip(sources, targets, strict=True))
    blocks = max(-(-target.numel() // SUM_BLOCK) for target in targets)
    kernel("triton_sums", "sum_slots_kernel")[(blocks, len(targets))](
        tuple(sources),
        tuple(targets),
        shapes,
        NUMBER=len(targets),
        BLOCK=SUM_BLOCK,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return targets


def spread(tensors: Sequence[Tensor], present: Sequence[bool]) -> list[Tensor | None]:
    """The tensors at their places, None at the others: custom ops take no optional tensors in lists."""
    remaining = iter(tensors)
    return [next(remaining) if here else None for here in present]
