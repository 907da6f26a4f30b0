"""The selective scan in plain torch: always there, on every device, for every layout of B and C.

Time advances in small chunks whose (t, b, n, d) temporaries stay in cache; the states of a whole sequence
never exist at once. The forward keeps the state every ~sqrt(l) steps and the backward recomputes from there.
Only decays exp(dt A) of single steps are formed, no inverses or quotients of cumulative products: any dt is
safe.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genzoo.kernels.scan.graph_scan import scan_in_a_graph
from genzoo.kernels.scan.record import Scan, gated
from genzoo.kernels.scan.shapes import compute_dtype

LOG2E = math.log2(math.e)
# elements of a chunk's temporaries: about a second-level cache on a CPU; on a GPU launches are what is scarce
CHUNK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 24}


def unavailable_reason() -> str | None:
    """Always there."""
    return None


def unsupported_reason(scan: Scan, z: Tensor | None) -> str | None:
    """Takes every layout, dtype and device."""
    return None


def one_direction(
    scan: Scan, *, z: Tensor | None, softplus: bool, reverse: bool, want_state: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The gated output (b, l, d), and the last state (b, d, n) if wanted."""
    y, state = _direction(scan, softplus, reverse, want_state)
    return gated(y, z, scan.u), state if want_state else None


def both_directions(first: Scan, second: Scan, *, z: Tensor | None, softplus: bool) -> Tensor:
    """The sum of a forward and a reverse scan, gated once."""
    y, _ = _direction(first, softplus, False, False)
    y_b, _ = _direction(second, softplus, True, False)
    return gated(y + y_b, z, first.u)


def _direction(scan: Scan, softplus: bool, reverse: bool, want_state: bool) -> tuple[Tensor, Tensor]:
    """Returns y (b, l, d), not gated, and the last state (b, d, n), in the compute dtype."""
    dtype = compute_dtype(scan.u)
    u, dt = scan.u.to(dtype), scan.delta.to(dtype)
    if scan.delta_bias is not None:
        dt = dt + scan.delta_bias.to(dtype)
    if softplus:
        dt = F.softplus(dt)
    A, B, C = scan.A.to(dtype), scan.B.to(dtype), scan.C.to(dtype)
    if torch.compiler.is_exporting() and not want_state:  # without gradients and chunks
        y, state = scan_in_a_graph(u, dt, A, B, C, reverse), u.new_zeros(())
    else:
        y, state, _ = _scan(u, dt, A, B, C, reverse)
    return (y if scan.D is None else torch.addcmul(y, u, scan.D.to(dtype))), state


@torch.library.custom_op("genzoo::torch_scan", mutates_args=())
def _scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y (b, l, d), the last state (b, d, n), the states (segments, b, n, d) at the start of each segment."""
    (batch, length, d), n = u.shape, A.shape[1]
    rates, drive = (A.t() * LOG2E).contiguous(), u * dt
    h = u.new_zeros(batch, n, d)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    chunk, segment = _chunk_length(u, n), _segment_length(length)
    decay, states = u.new_empty(chunk, batch, n, d), u.new_empty(chunk, batch, n, d)
    checkpoints = []
    for begin, end in _pieces(length, segment, reverse):
        checkpoints.append(h)
        for first, last in _pieces(end - begin, chunk, reverse):
            span = slice(begin + first, begin + last)
            a, x = decay[: last - first], states[: last - first]
            _fill(a, x, dt, drive, rates, B, span)
            h = _recur(a, x, h, reverse)
            _read_out(x, C, span, y)
            h = h.clone()
    return y, h.transpose(1, 2).contiguous(), torch.stack(checkpoints)


@torch.library.custom_op("genzoo::torch_scan_backward", mutates_args=())
def _scan_backward(
    grad_y: Tensor,
    grad_state: Tensor | None,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    checkpoints: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, dt, A, B, C."""
    (batch, length, d), n = u.shape, A.shape[1]
    natural, drive = A.t().contiguous(), u * dt
    rates = natural * LOG2E
    dS, ddecay = torch.empty_like(drive), torch.empty_like(drive)
    dA, dB, dC = torch.zeros_like(natural), torch.zeros_like(B), torch.zeros_like(C)
    carry = u.new_zeros(batch, n, d) if grad_state is None else grad_state.transpose(1, 2).contiguous()
    segment = min(_segment_length(length), length)
    decay, kept, lam = (u.new_empty(segment, batch, n, d) for _ in range(3))
    for i, (begin, end) in reversed(list(enumerate(_pieces(length, segment, reverse)))):
        span, size = slice(begin, end), end - begin
        a, h, adjoint = decay[:size], kept[:size], lam[:size]
        _fill(a, h, dt, drive, rates, B, span)
        _recur(a, h, checkpoints[i], reverse)
        _add_coefficient(dC, h, grad_y, span)
        torch.mul(_rows(grad_y, span), _spread(C, span, d), out=adjoint)
        carry = _recur_adjoint(a, adjoint, carry, reverse)
        _add_coefficient(dB, adjoint, drive, span)
        _read_out(adjoint, B, span, dS)
        # a_t h_{t-1} is what the step kept of the state
        flow = a.mul_(_previous(h, checkpoints[i], reverse)).mul_(adjoint)
        ddecay[:, span] = torch.mul(flow, natural, out=adjoint).sum(2).transpose(0, 1)
        dA += flow.mul_(_rows(dt, span)).sum((0, 1))
    return dS * dt, ddecay.addcmul_(dS, u), dA.t().contiguous(), dB, dC


def _chunk_length(u: Tensor, n: int) -> int:
    elements = CHUNK_ELEMENTS.get(u.device.type, CHUNK_ELEMENTS["cuda"])
    return max(1, min(64, u.shape[1], elements // max(1, u.shape[0] * u.shape[2] * n)))


def _segment_length(length: int) -> int:
    return max(16, math.isqrt(length))


def _pieces(length: int, size: int, reverse: bool) -> list[tuple[int, int]]:
    """Cut [0, length) into runs in the order of the scan."""
    if reverse:
        return [(max(0, end - size), end) for end in range(length, 0, -size)]
    return [(begin, min(length, begin + size)) for begin in range(0, length, size)]


def _rows(x: Tensor, span: slice) -> Tensor:
    """(b, l, d) -> (t, b, 1, d) for the steps of `span`."""
    return x[:, span].transpose(0, 1).unsqueeze(2)


def _spread(coefficient: Tensor, span: slice, d: int) -> Tensor:
    """B or C of any layout as (t or 1, b or 1, n, d or 1)."""
    if coefficient.ndim == 2:
        return coefficient.t()[None, None]
    rows = coefficient[:, span].transpose(0, 1)
    if coefficient.ndim == 3:
        return rows.unsqueeze(3)
    return rows.transpose(2, 3).repeat_interleave(d // coefficient.shape[2], dim=3)


def _add_coefficient(total: Tensor, states: Tensor, weights: Tensor, span: slice) -> None:
    """Add sum(states * weights) over all that B or C of this layout does not index. states: (t, b, n, d)."""
    rows = _rows(weights, span)
    if total.ndim == 2:
        total += (states * rows).sum((0, 1)).t()
    elif total.ndim == 3:
        total[:, span] += torch.matmul(states, rows.transpose(2, 3)).squeeze(3).transpose(0, 1)
    else:
        grouped = (states * rows).unflatten(3, (total.shape[2], -1)).sum(4)
        total[:, span] += grouped.permute(1, 0, 3, 2)


def _fill(
    decay: Tensor, drive: Tensor, dt: Tensor, inputs: Tensor, rates: Tensor, B: Tensor, span: slice
) -> None:
    """decay = exp(dt A) and drive = dt u B of a run of steps, (t, b, n, d)."""
    # exp2: torch's exp is two to three times slower on some CPUs
    torch.mul(_rows(dt, span), rates, out=decay).exp2_()
    torch.mul(_rows(inputs, span), _spread(B, span, inputs.shape[2]), out=drive)


def _recur(decay: Tensor, drive: Tensor, h: Tensor, reverse: bool) -> Tensor:
    """h_t = decay_t h_{t-1} + drive_t, written over `drive`; returns the last state."""
    steps = list(zip(decay.unbind(0), drive.unbind(0), strict=True))
    for a, x in reversed(steps) if reverse else steps:
        h = torch.addcmul(x, a, h, out=x)
    return h


def _recur_adjoint(decay: Tensor, lam: Tensor, carry: Tensor, reverse: bool) -> Tensor:
    """lam_t += a_{t+1} lam_{t+1}, against the scan's direction; returns a_t lam_t of its first step."""
    steps = list(zip(decay.unbind(0), lam.unbind(0), strict=True))
    for a, adjoint in steps if reverse else reversed(steps):
        carry = a * adjoint.add_(carry)
    return carry


def _previous(states: Tensor, start: Tensor, reverse: bool) -> Tensor:
    """h_{t-1} for each h_t of a run that began at `start`."""
    return torch.cat([states[1:], start[None]]) if reverse else torch.cat([start[None], states[:-1]])


def _read_out(states: Tensor, C: Tensor, span: slice, y: Tensor) -> None:
    """y[:, span] = sum_n C h; y: (b, l, d)."""
    if C.ndim == 3:
        rows = torch.matmul(C[:, span].transpose(0, 1).unsqueeze(2), states).squeeze(2)
    else:
        rows = (states * _spread(C, span, y.shape[2])).sum(2)
    y[:, span] = rows.transpose(0, 1)


@_scan.register_fake
def _(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    (batch, length, d), n = u.shape, A.shape[1]
    segments = len(_pieces(length, _segment_length(length), reverse))
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    return y, u.new_empty(batch, d, n), u.new_empty(segments, batch, n, d)


@_scan_backward.register_fake
def _(
    grad_y: Tensor,
    grad_state: Tensor | None,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    checkpoints: Tensor,
    reverse: bool,
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, dt, A, B, C))


def _setup_context(ctx: object, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])  # type: ignore[attr-defined]
    ctx.reverse = inputs[5]  # type: ignore[attr-defined]
    ctx.set_materialize_grads(False)  # type: ignore[attr-defined]


def _backward(ctx: object, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_y, grad_state, _ = grads
    *inputs, checkpoints = ctx.saved_tensors  # type: ignore[attr-defined]
    if grad_y is None:
        grad_y = torch.zeros_like(inputs[0])
    return *_scan_backward(grad_y, grad_state, *inputs, checkpoints, ctx.reverse), None  # type: ignore[attr-defined]


_scan.register_autograd(_backward, setup_context=_setup_context)
