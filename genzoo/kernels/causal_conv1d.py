"""Depthwise causal convolution with a fused SiLU, channels-last, in either direction of time or in both.

    out_t = silu(bias + sum_j weight[:, j] x_{t - (k - 1) + j})          reverse: x_{t + (k - 1) - j}

Positions outside the sequence count as zero. The reverse form equals flip(conv(flip(x))) without a flip.
A backend is a module of `genzoo.kernels.conv` with
    unsupported_reason(x, taps) -> str | None          why it cannot run this call
    one_direction(x, weight, bias, *, silu, reverse) -> out
    both_directions(x, weight, bias, weight_b, bias_b, *, silu) -> (out, out_b)          optional
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import FusesDirections
from genzoo.core.errors import BackendUnavailable, ShapeError, UsageError
from genzoo.kernels.conv import cpu_conv, torch_conv, triton_conv

_MODULES: dict[str, Any] = {"torch": torch_conv, "cpu": cpu_conv, "triton": triton_conv}
BACKENDS = ("auto", *_MODULES)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    activation: str | None = "silu",
    backend: str = "auto",
) -> Tensor:
    """x: (b, l, d), rows may be strided.   weight: (d, k), the last tap meets the present.   bias: (d,).

    Returns (b, l, d) in x's dtype; accumulates in float32, in float64 for float64 inputs.
    reverse looks into the future instead of the past.   activation: "silu" or None.
    Raises ShapeError, BackendUnavailable.
    """
    module = _choose(backend, x, weight, bias, activation)
    out: Tensor = module.one_direction(x, weight, bias, silu=activation == "silu", reverse=reverse)
    return out


def bidirectional_causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_b: Tensor,
    bias_b: Tensor | None,
    *,
    activation: str | None = "silu",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """`causal_conv1d` into the past, and with weight_b and bias_b into the future; x is read once on a GPU.

    Shapes as in `causal_conv1d`, weight_b like weight.   Returns both results, (b, l, d) each.
    """
    module = _choose(backend, x, weight, bias, activation)
    _check_weights(x, weight_b, bias_b)
    if weight_b.shape != weight.shape:
        raise ShapeError(f"weight_b must be like weight, {tuple(weight.shape)}, got {tuple(weight_b.shape)}")
    silu = activation == "silu"
    fused = able(module, FusesDirections)
    if fused is not None:
        pair: tuple[Tensor, Tensor] = fused.both_directions(x, weight, bias, weight_b, bias_b, silu=silu)
        return pair
    out = module.one_direction(x, weight, bias, silu=silu, reverse=False)
    return out, module.one_direction(x, weight_b, bias_b, silu=silu, reverse=True)


def _choose(backend: str, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Any:
    """The module that runs the call; "auto" takes the device's own, and plain torch where that cannot."""
    if x.ndim != 3:
        raise ShapeError(f"x must be (b, l, d), channels-last; got {tuple(x.shape)}")
    _check_weights(x, weight, bias)
    if activation not in ("silu", None):
        raise UsageError(f"activation must be 'silu' or None, got {activation!r}")
    if backend not in BACKENDS:
        raise UsageError(f"there is no convolution backend {backend!r}; known: {', '.join(BACKENDS)}")
    name = {"cpu": "cpu", "cuda": "triton"}.get(x.device.type, "torch") if backend == "auto" else backend
    reason = _MODULES[name].unsupported_reason(x, weight.shape[1])
    if reason is None:
        return _MODULES[name]
    if backend == "auto":
        return torch_conv
    raise BackendUnavailable(
        f"convolution backend {name!r} cannot run this call", why=reason, fix='use backend="auto"'
    )


def _check_weights(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.ndim != 2 or weight.shape[0] != x.shape[2] or weight.shape[1] < 1:
        raise ShapeError(f"weight must be (d, k) with d = {x.shape[2]} as in x, got {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (x.shape[2],):
        raise ShapeError(f"bias must be (d,) = ({x.shape[2]},), got {tuple(bias.shape)}")
