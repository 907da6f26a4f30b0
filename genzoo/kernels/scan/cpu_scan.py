"""The selective scan in C: custom operators around `genzoo/kernels/native`, with a fake kernel and autograd.

Computes in float64 for float64 inputs and in float32 otherwise; reads and writes bfloat16 directly.
B and C must be (b, l, n); the other layouts belong to the torch backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from genzoo.kernels.scan.record import Scan, pack, unpack

__all__ = ["both_directions", "one_direction", "unavailable_reason", "unsupported_reason"]


def unsupported_reason(scan: Scan, z: Tensor | None) -> str | None:
    """CPU tensors, with B and C of shape (b, l, n)."""
    if scan.u.device.type != "cpu":
        return f"the tensors are on {scan.u.device.type}"
    if scan.B.ndim != 3 or scan.C.ndim != 3:
        return f"B and C must be (b, l, n), got {tuple(scan.B.shape)} and {tuple(scan.C.shape)}"
    return unavailable_reason()


def one_direction(
    scan: Scan, *, z: Tensor | None, softplus: bool, reverse: bool, want_state: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The gated output (b, l, d), and the last state (b, d, n) if wanted."""
    out, state, _, _ = _run([scan], z, softplus, reverse, want_state)
    return out, state if want_state else None


def both_directions(first: Scan, second: Scan, *, z: Tensor | None, softplus: bool) -> Tensor:
    """Both directions, their sum and the gate in one pass."""
    return _run([first, second], z, softplus, False, False)[0]


def _run(
    scans: Sequence[Scan], z: Tensor | None, softplus: bool, reverse: bool, want_state: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator; in eager mode without the dispatcher, whose bookkeeping would slow small models."""
    tensors, present = pack(scans, z)
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    options = (present, softplus, reverse, want_state, save)
    if not is_eager(scans[0].u):
        return _scan(tensors, *options)
    if not torch.is_grad_enabled():
        return _scan_eagerly(tensors, *options)
    return _EagerScan.apply(*options, *tensors)


def _scan_eagerly(
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    softplus: bool,
    reverse: bool,
    want_state: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns out, last state, checkpoints of both directions; empty tensors for what is not wanted."""
    scans, z = unpack(tensors, present)
    u, A = scans[0].u, scans[0].A
    real = real_dtype(u)
    out = empty(u.shape, torch.bfloat16 if u.dtype == torch.bfloat16 else real)
    state = torch.empty((u.shape[0], *A.shape) if want_state else (0,), dtype=real)
    saved = [empty(_checkpoint_shape(u, A, real) if save and i < len(scans) else (0,), real) for i in (0, 1)]
    call = _Call(scans, z, out, softplus, reverse, saved if save else [], state if want_state else None, real)
    invoke("genzoo_scan_forward", real, call.arguments, call.work)
    return out.to(u.dtype), state, saved[0], saved[1]


def _checkpoint_shape(u: Tensor, A: Tensor, real: torch.dtype) -> tuple[int, int, int, int]:
    block, _, tile = scan_sizes(real)
    return (u.shape[0], -(-u.shape[1] // tile), A.shape[1], -(-u.shape[2] // block) * block)


class _Call:
    """The integers that describe a scan, and converted tensors, which must live until the call returns."""

    def __init__(
        self,
        scans: Sequence[Scan],
        z: Tensor | None,
        out: Tensor | None,
        softplus: bool,
        reverse: bool,
        checkpoints: list[Tensor],
        state: Tensor | None,
        real: torch.dtype,
    ) -> None:
        u, A = scans[0].u, scans[0].A
        self.work = u.numel() * A.shape[1] * len(scans)
        self.z = None if z is None else readable(z.detach(), real)
        self.kept: list[Tensor | None] = [self.z]
        self.arguments = [
            *u.shape,
            A.shape[1],
            int(softplus),
            len(scans),
            *describe(self.z),
            *describe(out),
        ]
        for i, scan in enumerate(scans):
            rows = [readable(x.detach(), real) for x in (scan.u, scan.delta, scan.B, scan.C)]
            vectors = [vector(x, real) for x in (scan.A, scan.D, scan.delta_bias)]
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
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    checkpoints: Tensor,
    checkpoints_b: Tensor,
    softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """The gradients of `tensors`, in their order."""
    scans, z = unpack(tensors, present)
    real = real_dtype(scans[0].u)
    call = _Call(scans, z, None, softplus, reverse, [checkpoints, checkpoints_b], None, real)
    grad_out, grad_state = readable(grad_out, real), vector(grad_state, real)
    # the second direction adds to what the first left in dz, which must not be rounded in between
    dz = None if z is None else empty(z.shape, real if len(scans) == 2 else _storable(z, real))
    arguments = [*call.arguments, *describe(grad_out), *describe(dz)]
    raw = [_gradient_buffers(scan, real) for scan in scans]
    for buffers in raw:
        arguments += [*describe(buffers[0]), *describe(buffers[1]), *(address(x) for x in buffers[2:])]
        arguments.append(address(grad_state))
    invoke("genzoo_scan_backward", real, arguments, 3 * call.work)
    grads = [grad for scan, buffers in zip(scans, raw, strict=True) for grad in _collect(scan, buffers)]
    return grads if z is None or dz is None else [*grads, dz.to(z.dtype)]


def _storable(x: Tensor, real: torch.dtype) -> torch.dtype:
    return torch.bfloat16 if x.dtype == torch.bfloat16 and real == torch.float32 else real


def _gradient_buffers(scan: Scan, real: torch.dtype) -> list[Tensor]:
    """du, ddelta, and the partial sums dA (b, d, n), dB, dC (groups, b, l, n), dD (b, d), dbias (b, d)."""
    (batch, length, width), n = scan.u.shape, scan.A.shape[1]
    block, group, _ = scan_sizes(real)
    groups = -(-width // (block * group))
    shapes = [(groups, batch, length, n)] * 2 + [(batch, width, n), (batch, width), (batch, width)]
    rows = [empty(x.shape, _storable(x, real)) for x in (scan.u, scan.delta)]
    return rows + [torch.empty(shape, dtype=real) for shape in shapes]


def _collect(scan: Scan, buffers: list[Tensor]) -> list[Tensor]:
    """Finish the partial sums: gradients of the tensors of `scan` that are there, in their dtypes."""
    du, ddelta, dB, dC, *per_sample = buffers
    dA, dD, dbias = (x.sum(0) for x in per_sample)
    dB, dC = (x[0] if len(x) == 1 else x.sum(0) for x in (dB, dC))
    grads = (du, ddelta, dA, dB, dC, dD, dbias)
    return [g.to(x.dtype) for x, g in zip(scan, grads, strict=True) if x is not None]


_scan = torch.library.custom_op("genzoo::cpu_scan", _scan_eagerly, mutates_args=(), device_types="cpu")
_scan_backward = torch.library.custom_op(
    "genzoo::cpu_scan_backward", _scan_backward_eagerly, mutates_args=(), device_types="cpu"
)


@_scan.register_fake
def _(
    tensors: Sequence[Tensor],
    present: Sequence[bool],
    softplus: bool,
    reverse: bool,
    want_state: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scans, _ = unpack(tensors, present)
    u, A = scans[0].u, scans[0].A
    real = real_dtype(u)
    state = u.new_empty((u.shape[0], *A.shape) if want_state else (0,), dtype=real)
    shapes = [_checkpoint_shape(u, A, real) if save and i < len(scans) else (0,) for i in (0, 1)]
    first, second = (u.new_empty(shape, dtype=real) for shape in shapes)
    return torch.empty_like(u, memory_format=torch.contiguous_format), state, first, second


@_scan_backward.register_fake
def _(
    grad_out: Tensor, grad_state: Tensor | None, tensors: Sequence[Tensor], *unused: object
) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, ctx.present, ctx.softplus, ctx.reverse, ctx.wanted_state, _ = inputs
    ctx.save_for_backward(*output[2:], *tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[list[Tensor] | None, ...]:
    return _differentiate(ctx, grads, _scan_backward), None, None, None, None, None


def _differentiate(
    ctx: Any, grads: tuple[Tensor | None, ...], backward: Callable[..., list[Tensor]]
) -> list[Tensor]:
    first, second, *tensors = ctx.saved_tensors
    grad_out, grad_state = grads[0], grads[1] if ctx.wanted_state else None
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    return backward(grad_out, grad_state, tensors, ctx.present, first, second, ctx.softplus, ctx.reverse)


_scan.register_autograd(_backward, setup_context=_setup_context)


class _EagerScan(torch.autograd.Function):
    """The same operator and gradient, called directly."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        options, tensors = arguments[:5], arguments[5:]
        output = _scan_eagerly(tensors, *options)
        ctx.mark_non_differentiable(*output[2:])
        _setup_context(ctx, (tensors, *options), output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return *(None,) * 5, *_differentiate(ctx, grads, _scan_backward_eagerly)
