"""Weights that have shapes and no values: what a dry run counts where a model's weights are not there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

Apply = Callable[..., nn.Module]
_mode: ContextVar[FakeTensorMode | None] = ContextVar("shapes_alone", default=None)


@contextlib.contextmanager
def shapes_will_do() -> Iterator[None]:
    """Within the block, who loads weights that are not there may build the model in `shapes()`."""
    # of one mode, since tensors of two cannot meet; data are real
    token = _mode.set(FakeTensorMode(allow_non_fake_inputs=True))
    try:
        with mock.patch.object(nn.Module, "_apply", _applied(nn.Module._apply)):
            yield
    finally:
        _mode.reset(token)


def shapes_do() -> bool:
    """Whether nobody will ask for values."""
    return _mode.get() is not None


def shapes() -> FakeTensorMode:
    """A context in which tensors are made without memory; within `shapes_will_do`."""
    mode = _mode.get()
    assert mode is not None
    return mode


def _applied(apply: Apply) -> Apply:
    """`Module._apply` that moves and casts shapes too: torch swaps them in place, which their weak references
    forbid (2.14).
    """

    def applied(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        held = (module._parameters, module._buffers)
        if all(has_values(one) for part in held for one in part.values() if one is not None):
            return apply(module, fn, recurse)
        for child in module.children() if recurse else ():
            child._apply(fn)  # type: ignore[no-untyped-call]
        for part in held:
            for name, one in part.items():
                part[name] = None if one is None else _moved(one, fn)
        return module

    return applied


@torch.no_grad()
def _moved(tensor: Tensor, fn: Callable[[Tensor], Tensor]) -> Any:
    moved = fn(tensor)
    if moved is tensor or not isinstance(tensor, nn.Parameter):
        return moved
    return nn.Parameter(moved, requires_grad=tensor.requires_grad)


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor is more than a shape."""
    return not isinstance(tensor, FakeTensor)
