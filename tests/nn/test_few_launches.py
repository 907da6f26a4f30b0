"""What a GPU computes in few launches has the values and gradients of plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genzoo.nn import few_launches
from genzoo.nn.few_launches import read_and_pass
from genzoo.nn.mamba import MambaMixer


def test_decays_of_both_directions_together_are_the_same_bits() -> None:
    """As a GPU computes them, in few launches."""
    generator = torch.Generator().manual_seed(0)
    logs = [torch.randn(5, 3, generator=generator, requires_grad=True) for _ in range(2)]
    grads = [torch.randn(5, 3, generator=generator) for _ in range(2)]
    apart, together = few_launches.decays(logs), few_launches._Decays.apply(*logs)
    assert all(torch.equal(a, b) for a, b in zip(apart, together, strict=True))
    expected = torch.autograd.grad(apart, logs, grads)
    found = torch.autograd.grad(together, logs, grads)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_reading_beside_has_exact_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    apply = few_launches._ReadAndPass.apply
    assert torch.autograd.gradcheck(apply, (u, weight))
    assert torch.autograd.gradcheck(lambda u, weight: apply(u, weight)[0], (u, weight))
    assert torch.autograd.gradcheck(lambda u, weight: apply(u, weight)[1], (u, weight))
    read, passed = apply(u, weight)
    assert torch.equal(read, nn.functional.linear(u, weight))
    assert torch.equal(passed, u)


def test_under_autocast_it_computes_in_sixteen_bits_and_leaves_the_dtypes_of_leaves() -> None:
    u, layer = torch.randn(2, 3, 8), nn.Linear(8, 4, bias=False)
    results = []
    for form in (lambda u: few_launches._ReadAndPass.apply(u, layer.weight), lambda u: (layer(u), u)):
        leaf = u.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            read, passed = form(leaf)
        assert (read.dtype, passed.dtype) == (torch.bfloat16, torch.float32)
        results.append(torch.autograd.grad(read.float().sum() + passed.square().sum(), [leaf, layer.weight]))
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("mixer", ["v2", "v1", "none"])
def test_a_mixer_computes_the_same(monkeypatch: pytest.MonkeyPatch, mixer: str) -> None:
    torch.manual_seed(0)
    layer, x = MambaMixer(12, d_state=3, mixer=mixer), torch.randn(2, 5, 12, requires_grad=True)
    leaves, results = [x, *layer.parameters()], []
    for fused in (False, True):
        monkeypatch.setattr(few_launches, "on_gpu", lambda x, fused=fused: fused)
        out = layer(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for plain, found in zip(*results, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_watched_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_launches, "on_gpu", lambda x: True)
    layer, seen = nn.Linear(8, 4, bias=False), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    read, _ = read_and_pass(layer, torch.randn(2, 3, 8))
    assert seen[0] is read
