"""Linear layers that a model on a CPU reads in oneDNN's own order of weights, while it is only evaluated.

Products with packed weights are the bits of torch's in bfloat16, and equal to rounding in float32, where
torch calls another library. Packed copies take the place of those that autocast would make, and lie beside
weights that are read in their own precision, up to `MOST` bytes of a model: more might not fit where it does.
What has a gradient, is traced or compiled, or lies elsewhere runs as it does without this.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from genzoo.kernels.native.call import is_eager
from genzoo.nn.compiled import is_compiled

# of a weight: below it the call costs more than the order of the numbers brings
LEAST = 1 << 15
# of a model's second copies together
MOST = 2 << 30
# the order is chosen for so many rows; it serves any number, and a single one worse when chosen for that
ROWS = 512
DTYPES = (torch.float32, torch.bfloat16)

_Version = tuple[int, int]
_kept: dict[tuple[int, torch.dtype], tuple[Tensor, _Version, Tensor]] | None = None
"""Of the open blocks: a weight, its version, and its numbers in order. Only the main thread evaluates."""


@contextmanager
def packs_kept() -> Iterator[None]:
    """Packed weights of all models live until the outermost of such blocks ends: its callers pack once."""
    global _kept
    outer, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = outer


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """The model's larger linear layers read packed weights when they are called without gradients.

    Weights are packed at their first use, again once they have changed, and dropped at the end. GENZOO_PACK=0
    leaves them as they are.
    """
    layers = [] if unavailable_reason() is not None or is_compiled(model) else _layers(model)
    fits = sum(layer.weight.nbytes for layer in layers) <= MOST
    with packs_kept():
        for layer in layers:
            layer.__dict__["forward"] = PackedLinear(layer, beside=fits)
        try:
            yield
        finally:
            for layer in layers:
                del layer.__dict__["forward"]


def linear_of(layer: nn.Linear, x: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + bias with the layer's weights, packed where they are, and a bias of its own."""
    reading = layer.__dict__.get("forward")
    return reading(x, bias) if isinstance(reading, PackedLinear) else linear(x, layer.weight, bias)


def packed_gelu(layer: nn.Module, x: Tensor) -> Tensor | None:
    """The tanh-GELU of a layer's output, within its product; None where its weights are not packed."""
    reading = layer.__dict__.get("forward")
    if not isinstance(reading, PackedLinear) or layer._forward_hooks or layer._forward_pre_hooks:
        return None
    return reading.with_gelu(x)


def unavailable_reason() -> str | None:
    """Why nothing is packed in this process, or None."""
    if os.environ.get("GENZOO_PACK") == "0":
        return "GENZOO_PACK is 0"
    return _lacking()


@cache
def _lacking() -> str | None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"nothing was measured on {platform.machine()}"
    if not torch.backends.mkldnn.is_available():
        return "torch has no oneDNN"
    names = ("_reorder_linear_weight", "_linear_pointwise")
    absent = [name for name in names if not hasattr(torch.ops.mkldnn, name)]
    return f"torch has no {' and no '.join(absent)}" if absent else None


def _layers(model: nn.Module) -> list[nn.Linear]:
    """Those whose weights are packed; a layer with a forward pass of its own is left alone."""
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and "forward" not in module.__dict__
        and module.weight.numel() >= LEAST
        and module.weight.device.type == "cpu"
        and module.weight.dtype in DTYPES
    ]


class PackedLinear:
    """The forward pass of a linear layer.   beside: whether copies of the weights' own dtype may be made."""

    def __init__(self, layer: nn.Linear, *, beside: bool) -> None:
        self.layer, self.beside = layer, beside

    def __call__(self, x: Tensor, *bias: Tensor | None) -> Tensor:
        """x: (..., d).   bias: in place of the layer's own."""
        used = bias[0] if bias else self.layer.bias
        weight = self._weight(x)
        if weight is None:
            return linear(x, self.layer.weight, used)
        return _product(x, weight, used, "none")

    def with_gelu(self, x: Tensor) -> Tensor | None:
        """The tanh-GELU of the layer's output, rounded once; None where the layer runs as it is."""
        weight = self._weight(x)
        return None if weight is None else _product(x, weight, self.layer.bias, "gelu")

    def _weight(self, x: Tensor) -> Tensor | None:
        """The packed weight, in the dtype that the product with x has; None where torch computes it."""
        weight = self.layer.weight
        if _kept is None or torch.is_grad_enabled() or not (is_eager(x) and is_eager(weight)):
            return None
        dtype = _product_dtype(x, weight)
        if dtype is None or not x.numel() or (dtype == weight.dtype and not self.beside):
            return None
        if weight.device.type != "cpu" or weight.is_inference():
            return None
        found, version = _kept.get((id(weight), dtype)), (weight._version, weight.data_ptr())
        if found is None or found[1] != version:
            order = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), ROWS)
            # the weight itself is kept, so that no other can have its number
            found = _kept[id(weight), dtype] = (weight, version, order)
        return found[2]


def _product_dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """What `linear` computes in, where oneDNN can."""
    if x.device.type != "cpu" or x.dtype not in DTYPES:
        return None
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        return dtype if dtype in DTYPES and (dtype != torch.bfloat16 or _has_bfloat16()) else None
    if x.dtype != weight.dtype:
        return None
    return x.dtype if x.dtype != torch.bfloat16 or _has_bfloat16() else None


@cache
def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    shift = None if bias is None else bias.detach().to(weight.dtype)
    approximation: Any = "tanh" if then == "gelu" else ""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        x.to(weight.dtype), weight, shift, then, [], approximation
    )
    return product
