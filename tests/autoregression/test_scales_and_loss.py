"""How token maps lie in a sequence, what is read next, and the loss per scale."""

from __future__ import annotations

import pytest
import torch

from genzoo.autoregression.loss import next_scale_loss, token_losses
from genzoo.autoregression.next_scale import contribution, enlarge, shrink, teacher_input
from genzoo.autoregression.scales import (
    block_causal_bias,
    plain_scales,
    scale_bounds,
    scale_lengths,
    scale_of_token,
    scale_sizes,
    split_scales,
    stretched_scales,
)
from genzoo.core.errors import ShapeError
from genzoo.core.sizes import Size

SCALES = [1, (2, 3), 4]
RELEASED = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def keep(map_: torch.Tensor, scale: int, num_scales: int) -> torch.Tensor:
    return map_


def test_scales_follow_each_other() -> None:
    assert scale_sizes(SCALES) == [(1, 1), (2, 3), (4, 4)]
    assert scale_lengths(SCALES) == [1, 6, 16]
    assert scale_bounds(SCALES) == [(0, 1), (1, 7), (7, 23)]
    assert scale_of_token([1, 2]).tolist() == [0, 1, 1, 1, 1]
    parts = split_scales(torch.arange(23)[None], SCALES)
    assert [part[0, 0].item() for part in parts] == [0, 1, 7]


def test_tokens_see_their_own_scale_and_coarser_ones() -> None:
    bias = block_causal_bias([1, (1, 2)])
    hidden = -torch.inf
    assert bias.tolist() == [[0, hidden, hidden], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        ([], "patch_nums is empty; give at least one scale"),
        ([1, 0], "patch_nums has 0; a scale is a side, or height and width, of size 1 or more"),
        ([(2, 0)], r"patch_nums has \(2, 0\); a scale is a side"),
    ],
)
def test_empty_scales_are_refused(scales: list[Size], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        scale_sizes(scales)


def test_sequences_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="22 tokens"):
        split_scales(torch.zeros(1, 22), SCALES)


def test_what_is_read_next_is_the_mean_of_all_so_far() -> None:
    maps = [torch.full((2, 3, 1, 1), 5.0), torch.arange(4.0).view(1, 1, 2, 2).expand(2, 3, 2, 2)]
    read = teacher_input(maps, [1, 2, 4], keep)
    assert [tuple(part.shape) for part in read] == [(2, 4, 3), (2, 16, 3)]
    assert torch.equal(read[0], torch.full((2, 4, 3), 5.0))
    grown = enlarge(maps[1], (4, 4)) + 5
    assert torch.allclose(read[1], grown.flatten(2).transpose(1, 2))


def test_refinement_is_told_its_scale() -> None:
    seen = []

    def refine(map_: torch.Tensor, scale: int, num_scales: int) -> torch.Tensor:
        seen.append((tuple(map_.shape[2:]), scale, num_scales))
        return map_ * 2

    added = contribution(torch.ones(1, 1, 2, 2), 1, 3, (6, 6), refine)
    assert seen == [((6, 6), 1, 3)]
    assert added.mean().item() == pytest.approx(2)
    assert shrink(torch.arange(16.0).view(1, 1, 4, 4), (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_loss_is_the_mean_over_all_tokens_and_tells_the_last_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, ids = torch.randn(2, 23, 7, generator=generator), torch.randint(7, (2, 23), generator=generator)
    terms = next_scale_loss(logits, ids, SCALES)
    each = token_losses(logits, ids)
    reference = -logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
    assert torch.allclose(each, reference, atol=1e-6)
    assert terms["loss"].item() == pytest.approx(each.mean().item(), rel=1e-6)
    assert terms["cross_entropy_last"].item() == pytest.approx(each[:, 7:].mean().item(), rel=1e-6)
    half = next_scale_loss(logits, ids, SCALES, last_scale_weight=0.5)["loss"]
    assert half.item() == pytest.approx((each[:, :7].sum() + each[:, 7:].sum() / 2).item() / 46, rel=1e-6)
    sure = next_scale_loss(torch.nn.functional.one_hot(ids, 7) * 99.0, ids, SCALES)
    assert (sure["accuracy"].item(), sure["accuracy_last"].item()) == (100, 100)


def test_logits_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="differ in batch or length"):
        token_losses(torch.zeros(1, 3, 5), torch.zeros(1, 4, dtype=torch.long))


def test_scales_have_one_spelling() -> None:
    assert plain_scales([1, [2, 2], (2, 4)]) == (1, 2, (2, 4))
    with pytest.raises(ShapeError, match="a side, or height and width"):
        plain_scales([1, [2, 2, 2]])


@pytest.mark.parametrize(
    ("size", "tokens", "expected"),
    [
        # by hand: round half up of p * 12 / 16 and p * 20 / 16
        ((12, 20), 658, [1, (2, 3), (2, 4), (3, 5), (4, 6), (5, 8), (6, 10), (8, 13), (10, 16), (12, 20)]),
        ((20, 12), 658, [1, (3, 2), (4, 2), (5, 3), (6, 4), (8, 5), (10, 6), (13, 8), (16, 10), (20, 12)]),
        ((16, 16), 680, list(RELEASED)),
        ((8, 32), 702, None),
    ],
)
def test_square_scales_are_stretched_to_a_shape(
    size: tuple[int, int], tokens: int, expected: list[object] | None
) -> None:
    scales = stretched_scales(RELEASED, size)
    assert sum(scale_lengths(scales)) == tokens
    assert expected is None or list(scales) == expected
    assert scale_sizes(scales)[-1] == size
