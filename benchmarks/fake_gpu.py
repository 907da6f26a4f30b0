"""A GPU that is not there: models on fake CUDA tensors, whose operations can be counted but not computed.

Shapes, dtypes and torch's autocast are real. What differs is bridged: torch's backward asks the driver, so
the graph is walked here; attention would choose its slow form without a device; Triton's launches go to a
recorder.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

import genzoo.kernels.attention
import genzoo.nn.attention
from genzoo.kernels import triton_host
from genzoo.kernels.adaln import triton_adaln
from genzoo.kernels.conv import triton_conv
from genzoo.kernels.scan import triton_configs, triton_op

MULTIPROCESSORS = 132  # of an H100
FUSED_OPS = {
    "genzoo::triton_selective_scan": triton_op.scan_op,
    "genzoo::triton_selective_scan_backward": triton_op.gradient_op,
    "genzoo::triton_conv": triton_conv.conv_op,
    "genzoo::triton_conv_backward": triton_conv.gradient_op,
    "genzoo::triton_adaln": triton_adaln.adaln_op,
    "genzoo::triton_adaln_backward": triton_adaln.gradient_op,
}
Launch = Callable[[str, Sequence[Any]], None]


@contextlib.contextmanager
def fake_gpu(on_launch: Launch) -> Iterator[None]:
    """New tensors on "cuda" are fake; on_launch(name, arguments) hears of each Triton launch."""

    class Recorder:
        def __init__(self, module: str, name: str) -> None:
            self.name = f"{module.partition('.')[0]}.{name}"

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *arguments, **constants: on_launch(self.name, arguments)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(triton_host, "kernel", Recorder))
        stack.enter_context(mock.patch.object(triton_host, "on_device", _nowhere))
        stack.enter_context(
            mock.patch.object(triton_configs, "_multiprocessors", return_value=MULTIPROCESSORS)
        )
        for module in (genzoo.nn.attention, genzoo.kernels.attention):
            stack.enter_context(mock.patch.object(module, "scaled_dot_product_attention", attend))
        stack.enter_context(FakeTensorMode())
        yield


def _nowhere(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def attend(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """The kernel that a GPU would choose: flash attention, with a mask the memory-efficient one."""
    if attn_mask is None and q.dtype in (torch.float16, torch.bfloat16):
        flash: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[0]
        return flash
    mask = None if attn_mask is None else attn_mask.expand(*q.shape[:3], k.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    found: Tensor = efficient(q, k, v, mask, torch.is_grad_enabled(), scale=scale)[0]
    return found


@contextlib.contextmanager
def autocast(dtype: torch.dtype) -> Iterator[None]:
    """torch.autocast("cuda"), which switches itself off where there is no CUDA."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


@contextlib.contextmanager
def saved_bytes(model: nn.Module) -> Iterator[list[int]]:
    """A list that grows by the bytes of each storage saved for the backward, parameters left out."""
    owned = {p.untyped_storage()._cdata for p in model.parameters()}
    sizes: list[int] = []
    kept: list[Any] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            owned.add(storage._cdata)
            kept.append(storage)  # an address may not be used again while it is counted
            sizes.append(storage.nbytes())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


@torch.no_grad()
def walk_backward(loss: Tensor) -> dict[int, Tensor]:
    """What loss.backward() does, node by node; returns the gradient of each leaf by its id.

    A node runs when all that depend on it have; gradients of one value are added, then brought to the shape
    and dtype of what the forward had.
    """
    assert loss.grad_fn is not None
    waiting = _dependencies(loss.grad_fn)
    grads: dict[Any, list[Tensor | None]] = defaultdict(list)
    grads[loss.grad_fn] = [torch.ones_like(loss)]
    leaves: dict[int, Tensor] = {}
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        received = grads.pop(node, [])
        if hasattr(node, "variable"):
            leaves[id(node.variable)] = received[0]  # type: ignore[assignment]
            continue
        received += [None] * (len(node._input_metadata) - len(received))
        edges = [edge for edge in node.next_functions if edge[0] is not None]
        for (following, index), grad in zip(edges, _run(node, received, len(edges)), strict=True):
            if grad is not None:
                _add(grads[following], index, _fit(grad, following._input_metadata[index]))
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
    return leaves


def _dependencies(start: Any) -> dict[Any, int]:
    counts: dict[Any, int] = defaultdict(int)
    seen, stack = {start}, [start]
    while stack:
        for following, _ in stack.pop().next_functions:
            if following is None:
                continue
            counts[following] += 1
            if following not in seen:
                seen.add(following)
                stack.append(following)
    return counts


def _run(node: Any, received: Sequence[Tensor | None], count: int) -> Sequence[Tensor | None]:
    """The gradients of those inputs of a node that want one."""
    if all(grad is None for grad in received):
        return [None] * count
    is_python = hasattr(
        node, "apply"
    )  # then there is a gradient, None, for arguments that are no tensors too
    found = node.apply(*received) if is_python else node(*received)
    found = found if isinstance(found, tuple) else (found,)
    if is_python:
        return [grad for grad, wanted in zip(found, node.needs_input_grad, strict=True) if wanted]
    return [grad for grad, edge in zip(found, node.next_functions, strict=True) if edge[0] is not None]


def _fit(grad: Tensor, wanted: Any) -> Tensor:
    shape = torch.Size(wanted.shape)
    grad = grad if grad.shape == shape else grad.sum_to_size(shape)
    return grad if grad.dtype == wanted.dtype else grad.to(wanted.dtype)


def _add(received: list[Tensor | None], index: int, grad: Tensor) -> None:
    received += [None] * (index + 1 - len(received))
    so_far = received[index]
    received[index] = grad if so_far is None else so_far + grad
