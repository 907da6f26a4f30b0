"""Weights of a block cast for autocast by one call, and their gradients by another.

Autocast casts every weight where a layer reads it, and the backward every gradient: two launches on a GPU for
each, hundreds in a step, and most of them shorter than their launch. Here a block casts all of its matrices
and biases at once. The copies are the same bits, block by block, so that gradients are still exchanged while
the backward goes on.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import KeepsExact

Forward = TypeVar("Forward", bound=Callable[..., Any])


def cast_together(forward: Forward) -> Forward:
    """Decorates the forward pass of a block: its linear layers find their weights cast when they are called.

    Only in training under autocast on a GPU; what a compiler traces it fuses itself, and sampling keeps
    autocast's own copies for all of its steps. A module names in `uncast` what inside it has to stay exact.
    """

    @functools.wraps(forward)
    def cast(self: nn.Module, x: Tensor, *arguments: Any, **options: Any) -> Any:
        if not applies(x):
            return forward(self, x, *arguments, **options)
        places = list(_cast_places(self))
        if not places:
            return forward(self, x, *arguments, **options)
        weights = [module._parameters[name] for module, name in places]
        copies = _CastAll.apply(torch.get_autocast_dtype(x.device.type), *weights)
        try:
            for (module, name), copy in zip(places, copies, strict=True):
                module._parameters[name] = copy
            return forward(self, x, *arguments, **options)
        finally:
            for (module, name), weight in zip(places, weights, strict=True):
                module._parameters[name] = weight

    return cast  # type: ignore[return-value]


def applies(x: Tensor) -> bool:
    """Whether a block that is given x casts its weights together."""
    if not x.is_cuda or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return torch.is_autocast_enabled("cuda")


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within the block what lies in 16 bits is read from copies in float32."""
    halves = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module._parameters.items()
        if weight is not None and weight.dtype in (torch.bfloat16, torch.float16)
    ]
    try:
        for module, name, weight in halves:
            module._parameters[name] = weight.detach().float()  # type: ignore[assignment]
        yield
    finally:
        for module, name, weight in halves:
            module._parameters[name] = weight


def exact_parameters(model: nn.Module) -> set[int]:
    """The identities of those parameters inside that are read in float32 even under autocast."""
    return {
        id(module.get_parameter(name))
        for module in model.modules()
        if (keeping := able(module, KeepsExact)) is not None
        for name in keeping.uncast
    }


def _cast_places(block: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The trained float32 weights and biases of the linear layers inside."""
    exact = exact_parameters(block)
    for module in block.modules():
        if not isinstance(module, nn.Linear):
            continue
        for name, weight in module._parameters.items():
            if weight is None or not weight.requires_grad or weight.dtype != torch.float32:
                continue
            if id(weight) not in exact:
                yield module, name


class _CastAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_cast([weight.detach() for weight in weights], dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(_cast([grad for grad in grads if grad is not None], torch.float32))
        return None, *(None if grad is None else next(found) for grad in grads)


def _cast(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    copies = [torch.empty_like(t, dtype=dtype, memory_format=torch.contiguous_format) for t in tensors]
    if copies:
        torch._foreach_copy_(copies, tensors)
    return copies
