"""Scan orders: where each token of a clip goes, and back."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from genzoo.core.errors import ShapeError, UsageError
from genzoo.nn.scan_order import ORDERS, from_sequences, to_sequences

F, H, W, D = 3, 2, 5, 4


def clip(batch: int = 2) -> torch.Tensor:
    return torch.arange(batch * F * H * W * D).reshape(batch, F, H * W, D)


@settings(max_examples=25, deadline=None)
@given(*[st.integers(1, 4)] * 4, st.sampled_from(ORDERS))
def test_every_order_has_its_inverse(b: int, f: int, n: int, d: int, order: str) -> None:
    tokens = torch.arange(b * f * n * d).reshape(b, f, n, d)
    sequences = to_sequences(tokens, order)
    assert sequences.ndim == 3
    assert torch.equal(from_sequences(sequences, order, num_frames=f, num_patches=n), tokens)


@pytest.mark.parametrize(("f", "row", "col"), [(0, 0, 3), (1, 1, 0), (2, 1, 4)])
def test_the_place_of_a_token_in_the_global_orders(f: int, row: int, col: int) -> None:
    tokens = clip()
    patch = tokens[1, f, row * W + col]
    spatial_first = to_sequences(tokens, "global_spatial_first")
    temporal_first = to_sequences(tokens, "global_temporal_first")
    assert torch.equal(spatial_first[1, f * H * W + row * W + col], patch)
    assert torch.equal(temporal_first[1, (row * W + col) * F + f], patch)


@pytest.mark.parametrize("order", ["global_spatial_first", "global_temporal_first"])
def test_a_reversed_global_sequence_reverses_frames_and_pixels(order: str) -> None:
    backwards = from_sequences(to_sequences(clip(), order).flip(1), order, num_frames=F, num_patches=H * W)
    assert torch.equal(backwards, clip().flip(1, 2))


@pytest.mark.parametrize(
    ("order", "pattern"), [("spatial", "b f n d -> (b f) n d"), ("temporal", "b f n d -> (b n) f d")]
)
def test_local_orders_keep_the_sequences_of_a_sample_together(order: str, pattern: str) -> None:
    assert torch.equal(to_sequences(clip(), order), rearrange(clip(), pattern))


def test_wrong_orders_and_shapes_are_named() -> None:
    with pytest.raises(UsageError, match=r"no scan order 'temporl'.*temporal"):
        to_sequences(clip(), "temporl")
    with pytest.raises(ShapeError, match=r"\(b, f, n, d\), not \(6, 10, 4\)"):
        to_sequences(clip().flatten(0, 1), "spatial")
    with pytest.raises(ShapeError, match="no temporal order of 3 frames of 10 patches"):
        from_sequences(torch.zeros(19, 3, 4), "temporal", num_frames=3, num_patches=10)
