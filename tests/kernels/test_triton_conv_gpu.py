"""The convolution's Triton kernels on a real GPU: parity with float64, determinism, compilation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genzoo.kernels.causal_conv1d import bidirectional_causal_conv1d, causal_conv1d

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# float32: some hundred roundings of 6e-8; the others: half a unit in the last place of the results
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def make_inputs(shape: tuple[int, int, int], taps: int, dtype: torch.dtype) -> list[Tensor]:
    b, l, d = shape
    g = torch.Generator().manual_seed(0)
    x = torch.randn(b, l, 2 * d, generator=g).to("cuda", dtype)[..., :d]
    return [x, *(torch.randn(s, generator=g).cuda() for s in 2 * [(d, taps), (d,)])]


def run(tensors: list[Tensor], backend: str, rounded: torch.dtype | None = None) -> list[Tensor]:
    """Both outputs and every gradient.   rounded: what incoming gradients are rounded to first."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    outs = bidirectional_causal_conv1d(*leaves, backend=backend)
    waves = [torch.sin(torch.arange(o.numel(), device=o.device)).view_as(o) for o in outs]
    grads = [wave.to(rounded or o.dtype).to(o.dtype) for wave, o in zip(waves, outs, strict=True)]
    return [*outs, *torch.autograd.grad(outs, leaves, grads)]


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize(
    ("shape", "taps"), [((2, 257, 96), 4), ((3, 64, 2305), 4), ((1, 1, 5), 8), ((2, 63, 33), 1)]
)
def test_agrees_with_float64(shape: tuple[int, int, int], taps: int, dtype: torch.dtype) -> None:
    tensors = make_inputs(shape, taps, dtype)
    found, expected = run(tensors, "triton"), run([t.double() for t in tensors], "torch", dtype)
    for value, exact in zip(found, expected, strict=True):
        assert (value.double() - exact).norm() <= TOLERANCES[dtype] * exact.norm()


def test_auto_chooses_triton_and_repeats_bit_for_bit() -> None:
    tensors = make_inputs((2, 130, 200), 4, torch.bfloat16)
    for a, b in zip(run(tensors, "auto"), run(tensors, "triton"), strict=True):
        assert torch.equal(a, b)


def test_compiled_code_gives_the_same() -> None:
    x, weight, bias, *_ = make_inputs((2, 40, 32), 4, torch.float32)
    compiled = torch.compile(causal_conv1d, fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, bias), causal_conv1d(x, weight, bias), rtol=0, atol=0)
