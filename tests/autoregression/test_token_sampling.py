"""Drawing tokens: filters, guidance, streams, and tokens that are given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genzoo.autoregression.filters import (
    draw_tokens,
    guide,
    gumbel_softmax,
    keep_top_k,
    keep_top_p,
    scale_ratio,
    smooth_weights,
)
from genzoo.autoregression.sampling import (
    GivenTokens,
    NextScaleOptions,
    keep_masks,
    next_scale,
    sample_scales,
)
from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.seeds import SampleStreams

SCALES = [1, 2, 3]


class Codes:
    """Five codes of width two, added as they are."""

    weight = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))

    def refine(self, h: Tensor, scale: int, num_scales: int) -> Tensor:
        return h


def predictor(batch: int, seed: int = 0) -> Callable[[int, Tensor | None], Tensor]:
    """Logits that depend on what was read."""
    weight = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))

    def predict(scale: int, read: Tensor | None) -> Tensor:
        if read is None:
            return torch.arange(5.0).expand(batch, 1, 5) / 2
        logits = read.flatten(2).transpose(1, 2) @ weight
        return logits.repeat(batch // len(logits), 1, 1)

    return predict


def streams(*positions: int) -> SampleStreams:
    return SampleStreams.from_seeds(0, "sample", positions=positions)


def test_top_k_keeps_the_largest_and_ties() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0]])
    hidden = -torch.inf
    assert keep_top_k(logits, 3).tolist() == [[hidden, 3, 2, 3, 2]]
    assert keep_top_k(logits, 0) is logits
    assert keep_top_k(logits, 9) is logits


def test_top_p_keeps_the_likeliest_that_reach_p_and_always_one() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert keep_top_p(logits, 0.79).isfinite().tolist() == [True, True, False, False]
    assert keep_top_p(logits, 1e-6).isfinite().tolist() == [True, False, False, False]
    assert keep_top_p(logits, 0) is logits


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.floats(0.01, 0.99), st.integers(0, 10_000))
def test_filters_never_drop_the_likeliest_and_never_change_what_stays(k: int, p: float, seed: int) -> None:
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))
    filtered = keep_top_p(keep_top_k(logits, k), p)
    assert torch.equal(filtered.argmax(-1), logits.argmax(-1))
    kept = filtered.isfinite()
    assert torch.equal(filtered[kept], logits[kept])
    assert kept.sum(-1).max() <= k


def test_guidance_grows_with_the_scale() -> None:
    conditional, unconditional = torch.tensor([2.0]), torch.tensor([1.0])
    assert guide(conditional, unconditional, 0.0).item() == 2
    assert guide(conditional, unconditional, 1.5).item() == 3.5
    assert [scale_ratio(k, 3) for k in range(3)] == [0, 0.5, 1]
    assert scale_ratio(0, 1) == 0


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(1, 20_000, 3)
    shares = draw_tokens(logits, streams(0))[0].bincount(minlength=3) / 20_000
    # four standard deviations of a share of 20,000 draws
    assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.014)


def test_one_stream_draws_what_one_generator_draws() -> None:
    logits = torch.randn(1, 6, 5, generator=torch.Generator().manual_seed(2))
    alone = torch.Generator().manual_seed(9)
    stream = SampleStreams([torch.Generator().manual_seed(9)])
    assert torch.equal(draw_tokens(logits, alone), draw_tokens(logits, stream))


def test_soft_draws_sharpen_with_the_scale() -> None:
    logits = torch.randn(2, 400, 5, generator=torch.Generator().manual_seed(2))
    peaks = [smooth_weights(logits, k, 3, streams(0, 1)).amax(-1).mean().item() for k in range(3)]
    assert peaks == sorted(peaks)
    assert peaks[-1] > 0.97
    masked = keep_top_k(logits, 2)
    assert (gumbel_softmax(masked, 0.3, streams(0, 1)) > 0).sum(-1).max() <= 2


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_picture_depends_on_its_own_stream_only(smooth: bool, guidance_scale: float) -> None:
    options = {"guidance_scale": guidance_scale, "smooth": smooth, "top_k": 4}
    halves = 2 if guidance_scale > 1 else 1
    whole = next_scale(predictor(3 * halves), Codes(), SCALES, streams(4, 5, 6), **options)
    part = next_scale(predictor(2 * halves), Codes(), SCALES, streams(5, 6), **options)
    assert [ids.shape[1] for ids in whole.ids] == [1, 4, 9]
    assert torch.allclose(whole.f_hat[1:], part.f_hat, atol=1e-6)
    assert all(torch.equal(a[1:], b) for a, b in zip(whole.ids, part.ids, strict=True))


def test_greedy_tokens_are_the_likeliest() -> None:
    options = NextScaleOptions(top_k=1)
    result = sample_scales(predictor(2), Codes(), SCALES, streams(0, 1), options, keep_logits=True)
    for ids, logits in zip(result.ids, result.logits, strict=True):
        assert torch.equal(ids, logits.argmax(-1))


def test_given_tokens_stay_and_shape_what_follows() -> None:
    ids = [torch.full((1, side**2), 3) for side in SCALES]
    nothing = [torch.zeros_like(tokens, dtype=torch.bool) for tokens in ids]
    everything = [~mask for mask in nothing]
    kept = next_scale(predictor(1), Codes(), SCALES, streams(0), GivenTokens(ids, everything))
    assert all(torch.equal(a, b) for a, b in zip(kept.ids, ids, strict=True))
    free = next_scale(predictor(1), Codes(), SCALES, streams(0))
    ignored = next_scale(predictor(1), Codes(), SCALES, streams(0), GivenTokens(ids, nothing))
    assert torch.equal(free.f_hat, ignored.f_hat)
    coarse = GivenTokens(ids, [everything[0], nothing[1], nothing[2]])
    assert next_scale(predictor(1), Codes(), SCALES, streams(0), coarse).ids[0].item() == 3


def test_tokens_are_kept_where_half_of_their_cell_is() -> None:
    keep = torch.zeros(1, 12, 12, dtype=torch.bool)
    keep[:, :, 6:] = True
    masks = keep_masks(keep, SCALES)
    assert [mask.tolist() for mask in masks[:2]] == [[[True]], [[False, True, False, True]]]
    assert masks[2].view(3, 3)[0].tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": 0.9}, "guidance_scale is 0.9"),
        ({"top_p": -0.1}, "top_p is -0.1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 6}, "the codebook has 5"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        next_scale(predictor(1), Codes(), SCALES, streams(0), **options)


def test_given_tokens_of_another_shape_are_refused() -> None:
    wrong = [torch.zeros(1, 2, dtype=torch.long)] * 3
    with pytest.raises(ShapeError, match="do not fit scale 0"):
        next_scale(predictor(1), Codes(), SCALES, streams(0), GivenTokens(wrong, wrong))
