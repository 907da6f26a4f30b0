"""The selective scan in C: custom operators around `genzoo/kernels/native`, with a fake kernel and autograd.

Computes in float64 for float64 inputs and in float32 otherwise; reads and writes bfloat16 directly.
B and C must be (b, l, n); the other layouts belong to the torch backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genzoo.kernels.native.call import (
    address,
    describe,
    empty,
    invoke,
    is_eager,
    readable,
    real_dtype,
    scan_sizes,
    unavailable_reason,
    vector,
)

__all__ = ["bidirectional_selective_scan", "selective_scan", "unavailable_reason", "unsupported_reason"]


def unsupported_reason(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> str | None:
    """CPU tensors, with B and C of shape (b, l, n)."""
    if u.device.type != "cpu":
        return f"the tensors are on {u.device.type}"
    if B.ndim != 3 or C.ndim != 3:
        return f"B and C must be (b, l, n), got {tuple(B.shape)} and {tuple(C.shape)}"
    return unavailable_reason()


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    reverse: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan in one direction; shapes as in `genzoo.kernels.selective_scan`."""
    first = (u, delta, A, B, C, D, delta_bias)
    save = _needs_grad(*first, z)
    out, state, _, _ = _run(*first, *(None,) * 7, z, delta_softplus, reverse, return_last_state, save)
    return (out, state) if return_last_state else out


def bidirectional_selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    u_b: Tensor,
    delta_b: Tensor,
    A_b: Tensor,
    B_b: Tensor,
    C_b: Tensor,
    D_b: Tensor | None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_bias_b: Tensor | None = None,
    *,
    delta_softplus: bool = False,
) -> Tensor:
    """Both directions and their gate in one pass; see `genzoo.kernels.bidirectional_selective_scan`."""
    first, second = (u, delta, A, B, C, D, delta_bias), (u_b, delta_b, A_b, B_b, C_b, D_b, delta_bias_b)
    save = _needs_grad(*first, *second, z)
    out, _, _, _ = _run(*first, *second, z, delta_softplus, False, False, save)
    return out


def _needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _run(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator; in eager mode without the dispatcher, whose bookkeeping would slow small models."""
    if not is_eager(arguments[0]):
        return _scan(*arguments)
    if not torch.is_grad_enabled():
        return _scan_eagerly(*arguments)
    return _EagerScan.apply(*arguments)


def _scan_eagerly(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    u_b: Tensor | None,
    delta_b: Tensor | None,
    A_b: Tensor | None,
    B_b: Tensor | None,
    C_b: Tensor | None,
    D_b: Tensor | None,
    bias_b: Tensor | None,
    z: Tensor | None,
    softplus: bool,
    reverse: bool,
    want_state: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns out, last state, checkpoints of both directions; empty tensors for what is not wanted."""
    real = real_dtype(u)
    out_dtype = torch.bfloat16 if u.dtype == torch.bfloat16 else real
    out = empty(u.shape, out_dtype)
    batch, _, width = u.shape
    state = torch.empty((batch, width, A.shape[1]) if want_state else (0,), dtype=real)
    branches: list[tuple[Tensor | None, ...]] = [(u, delta, A, B, C, D, bias)]
    if u_b is not None:
        branches.append((u_b, delta_b, A_b, B_b, C_b, D_b, bias_b))
    saved = [
        empty(_checkpoint_shape(u, A, real) if save and i < len(branches) else (0,), real) for i in (0, 1)
    ]
    call = _Call(
        branches, z, out, softplus, reverse, saved if save else [], state if want_state else None, real
    )
    invoke("genzoo_scan_forward", real, call.arguments, call.work)
    return out.to(u.dtype), state, saved[0], saved[1]


def _checkpoint_shape(u: Tensor, A: Tensor, real: torch.dtype) -> tuple[int, int, int, int]:
    block, _, tile = scan_sizes(real)
    return (u.shape[0], -(-u.shape[1] // tile), A.shape[1], -(-u.shape[2] // block) * block)


class _Call:
    """The integers that describe a scan, and converted tensors, which must live until the call returns."""

    def __init__(
        self,
        branches: list[tuple[Tensor | None, ...]],
        z: Tensor | None,
        out: Tensor | None,
        softplus: bool,
        reverse: bool,
        checkpoints: list[Tensor],
        state: Tensor | None,
        real: torch.dtype,
    ) -> None:
        u, A = branches[0][0], branches[0][2]
        assert u is not None
        assert A is not None
        self.work = u.numel() * A.shape[1] * len(branches)
        self.z = None if z is None else readable(z.detach(), real)
        self.kept: list[Tensor | None] = [self.z]
        self.arguments = [
            *u.shape,
            A.shape[1],
            int(softplus),
            len(branches),
            *describe(self.z),
            *describe(out),
        ]
        for i, (u, delta, A, B, C, D, bias) in enumerate(branches):
            rows = [readable(x.detach(), real) for x in (u, delta, B, C)]  # type: ignore[union-attr]
            vectors = [vector(x, real) for x in (A, D, bias)]
            for row in rows:
                self.arguments += describe(row)
            self.arguments += [address(x) for x in vectors]
            self.arguments += [
                address(checkpoints[i]) if checkpoints else 0,
                address(state),
                int(reverse or i == 1),
            ]
            self.kept += [*rows, *vectors]


def _scan_backward_eagerly(
    grad_out: Tensor,
    grad_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    u_b: Tensor | None,
    delta_b: Tensor | None,
    A_b: Tensor | None,
    B_b: Tensor | None,
    C_b: Tensor | None,
    D_b: Tensor | None,
    bias_b: Tensor | None,
    z: Tensor | None,
    checkpoints: Tensor,
    checkpoints_b: Tensor,
    softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """One gradient for each of u ... bias, u_b ... bias_b, z; an empty tensor stands for an absent one."""
    real = real_dtype(u)
    branches: list[tuple[Tensor | None, ...]] = [(u, delta, A, B, C, D, bias)]
    if u_b is not None:
        branches.append((u_b, delta_b, A_b, B_b, C_b, D_b, bias_b))
    call = _Call(branches, z, None, softplus, reverse, [checkpoints, checkpoints_b], None, real)
    grad_out, grad_state = readable(grad_out, real), vector(grad_state, real)
    # the second direction adds to what the first left in dz, which must not be rounded in between
    dz = None if z is None else empty(z.shape, real if len(branches) == 2 else _storable(z, real))
    arguments = [*call.arguments, *describe(grad_out), *describe(dz)]
    raw = [_gradient_buffers(branch, real) for branch in branches]
    for buffers in raw:
        arguments += [*describe(buffers[0]), *describe(buffers[1]), *(address(x) for x in buffers[2:])]
        arguments.append(address(grad_state))
    invoke("genzoo_scan_backward", real, arguments, 3 * call.work)
    grads: list[Tensor] = []
    for branch, buffers in zip(branches, raw, strict=True):
        grads += _collect(branch, buffers)
    grads += [torch.empty(0) for _ in range(14 - len(grads))]
    return [*grads, torch.empty(0) if z is None or dz is None else dz.to(z.dtype)]


def _storable(x: Tensor, real: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if x.dtype == torch.bfloat16 and real == torch.float32 else real


def _gradient_buffers(branch: tuple[Tensor | None, ...], real: torch.dtype) -> list[Tensor]:
    """du, ddelta, and the partial sums dB, dC (groups, b, l, n), dA (b, d, n), dD (b, d), dbias (b, d)."""
    u, delta, A = branch[0], branch[1], branch[2]
    assert u is not None
    assert delta is not None
    assert A is not None
    (batch, length, width), n = u.shape, A.shape[1]
    block, group, _ = scan_sizes(real)
    groups = -(-width // (block * group))
    shapes = [(groups, batch, length, n)] * 2 + [(batch, width, n), (batch, width), (batch, width)]
    rows = [empty(x.shape, _storable(x, real)) for x in (u, delta)]
    return rows + [torch.empty(shape, dtype=real) for shape in shapes]


def _collect(branch: tuple[Tensor | None, ...], buffers: list[Tensor]) -> list[Tensor]:
    """Finish the partial sums, in the order u, delta, A, B, C, D, bias and in the dtypes of the inputs."""
    du, ddelta, dB, dC, dA, dD, dbias = buffers
    grads = [
        du,
        ddelta,
        dA.sum(0),
        dB[0] if len(dB) == 1 else dB.sum(0),
        dC[0] if len(dC) == 1 else dC.sum(0),
    ]
    grads += [dD.sum(0), dbias.sum(0)]
    return [torch.empty(0) if x is None else g.to(x.dtype) for x, g in zip(branch, grads, strict=True)]


_scan = torch.library.custom_op("genzoo::cpu_scan", _scan_eagerly, mutates_args=(), device_types="cpu")
_scan_backward = torch.library.custom_op(
    "genzoo::cpu_scan_backward", _scan_backward_eagerly, mutates_args=(), device_types="cpu"
)


@_scan.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    u, A, u_b, (want_state, save) = arguments[0], arguments[2], arguments[7], arguments[17:]
    real = real_dtype(u)
    state = u.new_empty((u.shape[0], u.shape[2], A.shape[1]) if want_state else (0,), dtype=real)
    shape, none = _checkpoint_shape(u, A, real), (0,)
    first = u.new_empty(shape if save else none, dtype=real)
    second = u.new_empty(shape if save and u_b is not None else none, dtype=real)
    return torch.empty_like(u, memory_format=torch.contiguous_format), state, first, second


@_scan_backward.register_fake
def _(grad_out: Tensor, grad_state: Tensor | None, *inputs: Any) -> list[Tensor]:
    like = [torch.empty(0) if x is None else x for x in inputs[:15]]
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in like]


def _setup_context(ctx: object, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
    tensors = [x if isinstance(x, Tensor) else None for x in inputs[:15]]
    ctx.save_for_backward(*tensors, *output[2:])  # type: ignore[attr-defined]
    ctx.flags = inputs[15:17]  # type: ignore[attr-defined]
    ctx.wanted_state = inputs[17]  # type: ignore[attr-defined]
    ctx.set_materialize_grads(False)  # type: ignore[attr-defined]


def _backward(ctx: object, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return _differentiate(ctx, grads, _scan_backward)


def _differentiate(
    ctx: object, grads: tuple[Tensor | None, ...], backward: Callable[..., list[Tensor]]
) -> tuple[Tensor | None, ...]:
    *inputs, first, second = ctx.saved_tensors  # type: ignore[attr-defined]
    grad_out, grad_state = grads[0], grads[1] if ctx.wanted_state else None  # type: ignore[attr-defined]
    if grad_out is None:
        grad_out = torch.zeros_like(inputs[0])
    softplus, reverse = ctx.flags  # type: ignore[attr-defined]
    found = backward(grad_out, grad_state, *inputs, first, second, softplus, reverse)
    return *(None if x is None else g for x, g in zip(inputs, found, strict=True)), None, None, None, None


_scan.register_autograd(_backward, setup_context=_setup_context)


class _EagerScan(torch.autograd.Function):
    """The same operator and gradient, called directly."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        output = _scan_eagerly(*arguments)
        ctx.mark_non_differentiable(*output[2:])
        _setup_context(ctx, arguments, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, grads, _scan_backward_eagerly)
