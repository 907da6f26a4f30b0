"""Custom ops called without torch's registry where nobody watches.

torch.compile, export, fake tensors and modes that count need an op that the registry knows. Everywhere else
its dispatch is only time of the processor that feeds the GPU: for an op of as many tensors as the scan's and
its gradient, four times that of an autograd function. A step of DiM-XL/2 on an H200 took a third longer than
what the GPU computed in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels.native.call import is_eager


class Direct:
    """An op, or the function that it is, whichever the tensors of a call allow.

    op: the custom op.   run: its function.   setup_context, backward: as in
    `torch.library.register_autograd`, which this calls; without them there is no gradient.
    differentiable: how many outputs, the first ones, have gradients; None for all.
    """

    def __init__(
        self,
        op: Any,
        run: Callable[..., Any],
        *,
        backward: Callable[..., Any] | None = None,
        setup_context: Callable[..., None] | None = None,
        differentiable: int | None = None,
    ) -> None:
        self.op, self.run, self.backward, self.setup_context = op, run, backward, setup_context
        self.differentiable = differentiable
        if backward is not None:
            torch.library.register_autograd(op, backward, setup_context=setup_context)

    def __call__(self, *arguments: Any) -> Any:
        """The op's results, a tuple of tensors or a list."""
        if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
            return self.op(*arguments)
        tensors = [tensor for part in _parts(arguments) for tensor in part]
        if not all(map(is_eager, tensors)):
            return self.op(*arguments)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return _Recorded.apply(self, arguments, *tensors)
        return self.run(*arguments)


class _Recorded(torch.autograd.Function):
    """The gradient of a `Direct`."""

    @staticmethod
    def forward(ctx: Any, direct: Direct, arguments: tuple[Any, ...], *tensors: Tensor) -> Any:
        outputs = direct.run(*arguments)
        direct.setup_context(ctx, arguments, outputs)  # type: ignore[misc]
        ctx.direct, ctx.sizes = direct, [len(part) for part in _parts(arguments)]
        if direct.differentiable is not None:
            ctx.mark_non_differentiable(*outputs[direct.differentiable :])
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        found: list[Tensor | None] = []
        for size, part in zip(ctx.sizes, ctx.direct.backward(ctx, *grads), strict=True):
            if size:
                found += part if isinstance(part, list | tuple) else [part] * size
        return None, None, *found


def _parts(arguments: Sequence[Any]) -> Iterator[Sequence[Tensor]]:
    """The tensors of each argument: several, one or none."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield (argument,)
        elif isinstance(argument, list | tuple) and argument and isinstance(argument[0], Tensor):
            yield argument
        else:
            yield ()
