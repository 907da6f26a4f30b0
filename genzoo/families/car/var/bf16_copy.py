"""Copies of trained modules in 16 bits, for sampling: half the bytes to read, and twice the arithmetic."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from genzoo.core.errors import UsageError
from genzoo.nn.compiled import compile_like

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

Module = TypeVar("Module", bound=nn.Module)


class HalfCopy:
    """The bfloat16 copy of one module at a time, made again when its weights have changed.

    finish: done to a fresh copy.
    """

    def __init__(self, finish: Callable[[nn.Module], None] | None = None) -> None:
        self._finish = finish
        self._of: weakref.ref[nn.Module] | None = None
        self._version: tuple[int, ...] = ()
        self._copy: Any = None

    def __call__(self, module: Module) -> Module:
        """The copy, in evaluation mode and without gradients."""
        version = weights_version(module)
        if self._of is None or self._of() is not module or self._version != version:
            self._copy = halved(module)
            if self._finish is not None:
                self._finish(self._copy)
            self._of, self._version = weakref.ref(module), version
        result: Module = self._copy
        return result


def halved(module: Module) -> Module:
    """A copy with floating tensors in bfloat16; at no time are there two in full precision.

    Raises UsageError for a model that is shared out over processes, which cannot be copied.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        rounded = parameter.detach().to(torch.bfloat16)
        memo[id(parameter)] = nn.Parameter(rounded, requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to(torch.bfloat16) if buffer.is_floating_point() else buffer
    try:
        copied = copy.deepcopy(module, memo).eval()
    except AssertionError as error:  # what torch says of such modules
        raise UsageError(
            "a model that is shared out over processes cannot be sampled in bf16",
            why=str(error),
            fix="use precision: fp32 for previews and evaluation, or train.sharding: none",
        ) from error
    compile_like(copied, module)
    return copied


def weights_version(module: nn.Module) -> tuple[int, ...]:
    """Changes when a parameter is changed in place or moved."""
    return tuple(number for p in module.parameters() for number in (p._version, p.data_ptr()))
