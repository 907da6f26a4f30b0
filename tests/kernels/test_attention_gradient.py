"""The gradient of attention in C: against float64 at any size, stride and mask, and when torch's serves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from genzoo.kernels import attention as module
from genzoo.kernels.attention import attention, torch_serves_because
from genzoo.kernels.native import build

pytestmark = pytest.mark.skipif(
    build.unavailable_reason() is not None, reason="no C compiler on this machine"
)
# batch, heads, queries, keys, width
SIZES = [(1, 1, 1, 1, 1), (2, 3, 5, 5, 7), (1, 2, 33, 70, 24), (2, 2, 70, 33, 16), (1, 2, 100, 341, 80)]

# of the gradient's largest value
TOLERANCE = {torch.float64: 1e-13, torch.float32: 5e-6, torch.bfloat16: 2e-2}


def _inputs(sizes: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """q, k and v as a projection of all three lays them out, and the gradient of the result."""
    batch, heads, rows, keys, width = sizes
    noise = torch.Generator().manual_seed(rows + keys)
    qkv = torch.randn(batch, max(rows, keys), 3, heads, width, dtype=torch.float64, generator=noise)
    grad = torch.randn(batch, heads, rows, width, dtype=torch.float64, generator=noise)
    q, k, v = (part.transpose(1, 2) for part in qkv.to(dtype).unbind(2))
    return [q[:, :, :rows], k[:, :, :keys], v[:, :, :keys], grad.to(dtype)]


def _gradients(inputs: list[Tensor], bias: Tensor | None) -> tuple[Tensor, ...]:
    """Of q, k and v by genzoo's attention."""
    leaves = [x.detach().requires_grad_() for x in inputs[:3]]
    return torch.autograd.grad(attention(*leaves, bias=bias, scale=0.3), leaves, inputs[3])


def _exact(inputs: list[Tensor], bias: Tensor | None) -> tuple[Tensor, ...]:
    """The same by torch in float64."""
    leaves = [x.detach().double().requires_grad_() for x in inputs[:3]]
    mask = None if bias is None else bias.double()
    out = scaled_dot_product_attention(*leaves, attn_mask=mask, scale=0.3)
    return torch.autograd.grad(out, leaves, inputs[3].double())


def _only_earlier_keys(rows: int, keys: int, dtype: torch.dtype) -> Tensor:
    later = torch.ones(rows, keys).triu(1).bool()
    return torch.zeros(1, 1, rows, keys, dtype=dtype).masked_fill(later, -math.inf)


@pytest.mark.parametrize("causal", [False, True], ids=["all keys", "earlier keys"])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradients_equal_those_of_float64(
    sizes: tuple[int, ...], dtype: torch.dtype, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FASTER_DTYPES", tuple(TOLERANCE))
    inputs = _inputs(sizes, dtype)
    bias = _only_earlier_keys(*sizes[2:4], dtype) if causal else None
    assert torch_serves_because(inputs[0].detach().requires_grad_(), *inputs[1:3], bias) is None
    for ours, theirs in zip(_gradients(inputs, bias), _exact(inputs, bias), strict=True):
        assert ours.dtype == dtype
        gap = (ours.double() - theirs).abs().max()
        assert gap <= TOLERANCE[dtype] * theirs.abs().max().clamp(min=1e-3)


def test_the_value_is_torchs_bit_for_bit() -> None:
    inputs = _inputs((2, 3, 40, 40, 32), torch.bfloat16)
    bias = _only_earlier_keys(40, 40, torch.bfloat16)
    with_gradient = attention(inputs[0].detach().requires_grad_(), *inputs[1:3], bias=bias)
    assert torch.equal(with_gradient, scaled_dot_product_attention(*inputs[:3], attn_mask=bias))


def test_forbidden_keys_get_no_gradient_at_all() -> None:
    q, k, v, grad = _inputs((1, 2, 40, 40, 16), torch.bfloat16)
    bias = torch.zeros(1, 1, 40, 40, dtype=torch.bfloat16)
    bias[..., 30:] = -math.inf
    for found in _gradients([q, k, v, grad], bias)[1:]:
        assert found[:, :, :30].abs().amin(-1).max() > 0
        assert not found[:, :, 30:].any()


def test_a_bias_of_each_head_and_sample_is_used() -> None:
    inputs = _inputs((2, 3, 20, 36, 16), torch.bfloat16)
    for sizes in ((2, 3), (1, 3), (2, 1)):
        bias = torch.randn(*sizes, 20, 36, generator=torch.Generator().manual_seed(3)).bfloat16()
        for ours, theirs in zip(_gradients(inputs, bias), _exact(inputs, bias), strict=True):
            assert (ours.double() - theirs).abs().max() < 2e-2 * theirs.abs().max()


def test_threads_change_no_bit() -> None:
    inputs, before = _inputs((2, 8, 130, 130, 32), torch.bfloat16), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(_gradients(inputs, None))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


def test_when_torchs_gradient_serves() -> None:
    q, k, v, _ = (x.detach().requires_grad_() for x in _inputs((1, 2, 8, 8, 16), torch.bfloat16))
    assert torch_serves_because(q, k, v, None) is None
    with torch.no_grad():
        assert "no gradient" in str(torch_serves_because(q, k, v, None))
    assert "as fast" in str(torch_serves_because(q.float(), k.float(), v.float(), None))
    long = torch.zeros(1, 2, module.LONGEST + 1, 16, dtype=torch.bfloat16)
    assert "as fast" in str(torch_serves_because(q, long, long, None))
    assert "differ" in str(torch_serves_because(q, k, v[..., :8], None))
    bias = torch.zeros(1, 1, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    assert "bias has a gradient" in str(torch_serves_because(q, k, v, bias))
