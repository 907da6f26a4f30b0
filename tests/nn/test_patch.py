"""Patches: order, inverse, and errors."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.core.errors import ShapeError
from genzoo.nn.patch import PatchEmbed, unpatchify


def patchify(x: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Flat patches, row by row, the channel running fastest: (b, c, h*p, w*p) -> (b, h*w, p*p*c)."""
    return rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size)


@settings(max_examples=25, deadline=None)
@given(h=st.integers(1, 4), w=st.integers(1, 4), p=st.integers(1, 3), c=st.integers(1, 3))
def test_unpatchify_inverts_patchify(h: int, w: int, p: int, c: int) -> None:
    x = torch.arange(2 * c * h * p * w * p, dtype=torch.float32).reshape(2, c, h * p, w * p)
    tokens = patchify(x, p)
    assert tokens.shape == (2, h * w, p * p * c)
    assert torch.equal(unpatchify(tokens, p, height=h, width=w), x)


def test_patches_are_row_major_with_the_channel_fastest() -> None:
    x = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    tokens = patchify(x, 2)
    # the second patch of the second row of patches: its first pixel is row 2, column 2
    assert tokens[0, 3 + 1, :4].tolist() == [x[0, 0, 2, 2], x[0, 1, 2, 2], x[0, 0, 2, 3], x[0, 1, 2, 3]]


def test_unpatchify_without_a_grid_is_square() -> None:
    assert unpatchify(torch.zeros(1, 9, 4 * 3), 2).shape == (1, 3, 6, 6)


def test_patch_embed_maps_every_patch_by_the_same_matrix() -> None:
    embed = PatchEmbed(3, 8, 2)
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    tokens = embed(x)
    assert tokens.shape == (2, 6, 8)
    assert tokens.is_contiguous()
    patch = x[1, :, 2:4, 4:6].flatten()
    expected = embed.proj.weight.flatten(1) @ patch + embed.proj.bias
    torch.testing.assert_close(tokens[1, 1 * 3 + 2], expected)


def test_patch_embed_starts_as_a_xavier_linear() -> None:
    torch.manual_seed(0)
    embed = PatchEmbed(3, 500, 2)
    bound = (6 / (500 + 12)) ** 0.5
    assert embed.proj.weight.abs().max() <= bound
    assert embed.proj.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert not embed.proj.bias.any()


def test_sizes_that_cannot_be_cut_are_named() -> None:
    with pytest.raises(ShapeError, match="6 x 8 cannot be cut into patches of 4 x 4"):
        PatchEmbed(1, 4, 4)(torch.zeros(1, 1, 6, 8))


def test_tokens_that_fill_no_grid_are_named() -> None:
    with pytest.raises(ShapeError, match="5 tokens of 4 values"):
        unpatchify(torch.zeros(1, 5, 4), 2)
