"""Attention, modulation and the two residual blocks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from genzoo.core.errors import ShapeError
from genzoo.nn.attention import SHORT, Attention, attend
from genzoo.nn.blocks import AttentionBlock, MambaBlock, run_blocks
from genzoo.nn.modulation import FinalLayer, gated_add, modulate

BLOCKS = {
    "attention": lambda: AttentionBlock(12, 3),
    "mamba": lambda: MambaBlock(12, d_state=3),
    "mamba v1": lambda: MambaBlock(12, d_state=3, mixer="v1"),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def opened(module: nn.Module) -> nn.Module:
    """The module in float64, its zero-initialised modulation opened."""
    torch.manual_seed(1)
    for name, parameter in module.double().named_parameters():
        if "adaLN_modulation" in name or name.endswith("bias"):
            parameter.normal_(std=0.3)
    return module


def test_modulate_and_gate_are_per_sample() -> None:
    x, branch, shift, scale = (
        normal(2, 5, 4),
        normal(2, 5, 4, seed=1),
        normal(2, 4, seed=2),
        normal(2, 4, seed=3),
    )
    expected = x * (1 + scale[:, None]) + shift[:, None]
    torch.testing.assert_close(modulate(x, shift, scale), expected)
    torch.testing.assert_close(gated_add(x, scale, branch), x + scale[:, None] * branch)


def test_attention_is_the_textbook_formula_head_by_head() -> None:
    attention = Attention(6, 2).double()
    x = normal(2, 5, 6)
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        weights = (q[..., head] @ k[..., head].transpose(1, 2) / math.sqrt(3)).softmax(dim=-1)
        heads.append(weights @ v[..., head])
    torch.testing.assert_close(attention(x), attention.proj(torch.cat(heads, dim=-1)))


@pytest.mark.parametrize("length", [7, SHORT + 1])
def test_short_attention_in_bfloat16_is_trained_by_its_products(length: int) -> None:
    exact = [normal(2, 3, length, 4, seed=seed).requires_grad_() for seed in range(3)]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    wanted = torch.nn.functional.scaled_dot_product_attention(*exact)
    mixed = attend(*rounded)
    seed = normal(*wanted.shape, seed=3)
    gradients = torch.autograd.grad(mixed, rounded, seed.bfloat16())
    for found, right in zip(gradients, torch.autograd.grad(wanted, exact, seed), strict=True):
        # bfloat16 has 8 bits: two hundredths of the largest gradient
        assert (found - right).abs().max() < 0.02 * right.abs().max()
    assert (mixed - wanted).abs().max() < 0.02 * wanted.abs().max()
    fused = "ScaledDotProduct" in type(mixed.grad_fn).__name__
    assert fused == (length > SHORT)


def test_heads_must_share_the_width() -> None:
    with pytest.raises(ShapeError, match="10 cannot be shared by num_heads 3"):
        Attention(10, 3)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_fresh_block_is_the_identity(name: str) -> None:
    block = BLOCKS[name]().double()
    x = normal(2, 5, 12)
    assert torch.equal(block(x, normal(2, 12, seed=1)), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_an_open_block_mixes_tokens_of_one_sample_only(name: str) -> None:
    block = opened(BLOCKS[name]())
    x, c = normal(2, 5, 12).requires_grad_(), normal(2, 12, seed=1)
    (gradient,) = torch.autograd.grad(block(x, c)[1, 2].sum(), x)
    assert not gradient[0].any()
    assert gradient[1].abs().sum(dim=-1).gt(0).all()


@pytest.mark.parametrize("name", ["mamba", "mamba v1"])
def test_a_block_with_equal_directions_commutes_with_reversal(name: str) -> None:
    block = opened(BLOCKS[name]())
    with torch.no_grad():
        for key, parameter in block.mixer.named_parameters():
            twin = key.replace("_b_", "_").replace("_b.", ".").removesuffix("_b")
            parameter.copy_(block.mixer.get_parameter(twin))
    x, c = normal(2, 5, 12), normal(2, 12, seed=1)
    if name == "mamba v1":
        # its one convolution is causal, so only a convolution without memory is symmetric
        with torch.no_grad():
            block.mixer.conv1d.weight[..., :-1] = 0
    torch.testing.assert_close(block(x.flip(1), c), block(x, c).flip(1))


def test_the_mixer_keeps_its_own_initial_values() -> None:
    torch.manual_seed(0)
    mixer = MambaBlock(48, d_state=3).mixer
    for suffix in ("", "_b"):
        dt = nn.functional.softplus(mixer.get_parameter(f"dt_proj{suffix}.bias"))
        assert dt.min() >= 0.999e-3
        assert dt.max() <= 0.1001
        assert torch.equal(mixer.get_parameter(f"A{suffix}_log")[5], torch.arange(1, 4).log())


def test_linears_outside_the_mixer_start_xavier() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(96, 3)
    bound = (6 / (96 + 384)) ** 0.5
    assert block.mlp.fc1.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert not block.attn.qkv.bias.any()


def test_checkpointed_blocks_give_the_same_gradients() -> None:
    blocks = nn.ModuleList(opened(BLOCKS[name]()) for name in BLOCKS)
    gradients = []
    for recompute in (False, True):
        x, c = normal(2, 5, 12).requires_grad_(), normal(2, 12, seed=1)
        out = run_blocks(blocks, x, c, gradient_checkpointing=recompute)
        gradients.append(torch.autograd.grad(out.square().sum(), [x, *blocks.parameters()]))
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


def test_the_final_layer_starts_at_zero_and_modulates() -> None:
    layer = FinalLayer(12, 7).double()
    x, c = normal(2, 5, 12), normal(2, 12, seed=1)
    assert not layer(x, c).any()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    shift, scale = layer.adaLN_modulation[1](nn.functional.silu(c)).chunk(2, dim=1)
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(layer(x, c), layer.linear(normed * (1 + scale[:, None]) + shift[:, None]))
