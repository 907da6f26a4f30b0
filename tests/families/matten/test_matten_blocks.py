"""M-AdaN as its formula, the variants as lists of blocks, and conditional tokens."""

from __future__ import annotations

import pytest
import torch
from families.video_models import EVERY, inputs, opened
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.families.matten.blocks import AdaptiveMambaBlock, PlainMambaBlock
from genzoo.families.matten.tokens import ConditionTokens, apply_block_with_tokens
from genzoo.families.matten.variants import block_plan

D = 8
GLOBAL = ("mamba", "global_spatial_first")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def block(residual: str) -> AdaptiveMambaBlock:
    torch.manual_seed(0)
    made = AdaptiveMambaBlock(D, residual=residual, d_state=3).double()
    made.adaLN_modulation[1].weight.normal_(std=0.3)
    return made


def modulation(made: AdaptiveMambaBlock, c: Tensor) -> tuple[Tensor, ...]:
    return made.adaLN_modulation(c)[:, None].chunk(3, dim=2)


def test_the_residual_of_dit() -> None:
    made, x, c = block("dit"), normal(2, 5, D), normal(2, D, seed=1)
    beta, gamma, alpha = modulation(made, c)
    expected = x + alpha * made.mixer((1 + gamma) * made.norm(x) + beta)
    torch.testing.assert_close(made(x, c), expected)


def test_the_residual_as_printed() -> None:
    made, x, c = block("as_printed"), normal(2, 5, D), normal(2, D, seed=1)
    beta, gamma, alpha = modulation(made, c)
    expected = alpha * x + made.mixer(gamma * made.norm(x) + beta)
    torch.testing.assert_close(made(x, c), expected)


def test_a_fresh_block_is_the_identity_or_a_plain_residual() -> None:
    x, c = normal(2, 5, D), normal(2, D, seed=1)
    assert torch.equal(AdaptiveMambaBlock(D, d_state=3).double()(x, c), x)
    printed = AdaptiveMambaBlock(D, residual="as_printed", d_state=3).double()
    torch.testing.assert_close(printed(x, c), x + printed.mixer(printed.norm(x)))


def test_rows_of_the_condition_serve_consecutive_sequences() -> None:
    made, x, c = block("dit"), normal(6, 5, D), normal(2, D, seed=1)
    torch.testing.assert_close(made(x, c), made(x, c.repeat_interleave(3, dim=0)))


def test_the_variants_at_the_depth_of_the_tables() -> None:
    attention = [("attention", "spatial"), ("attention", "temporal")]
    assert block_plan(1, 28) == [GLOBAL] * 63
    assert block_plan(2, 28) == [("mamba", "spatial"), ("mamba", "temporal")] * 31 + [("mamba", "spatial")]
    assert block_plan(3, 28) == [*attention, GLOBAL] * 14
    assert block_plan(4, 28) == [attention[1], GLOBAL] * 23


@pytest.mark.parametrize(
    ("depth", "mamba", "pairs"), [(12, 27, 10), (24, 54, 20), (28, 63, 23), (2, 5, 2), (1, 2, 1)]
)
def test_other_depths_keep_the_proportions(depth: int, mamba: int, pairs: int) -> None:
    assert (len(block_plan(1, depth)), len(block_plan(2, depth))) == (mamba, mamba)
    assert len(block_plan(4, depth)) == 2 * pairs


def test_the_global_scan_can_go_place_by_place() -> None:
    assert block_plan(1, 1, "temporal_first") == [("mamba", "global_temporal_first")] * 2
    x, timesteps, labels = inputs()
    models = [opened(EVERY["matten_3"](scan=scan)) for scan in ("spatial_first", "temporal_first")]
    first, second = (model(x, timesteps, labels) for model in models)
    assert not torch.allclose(first, second)


def test_condition_tokens_are_timestep_and_label() -> None:
    tokens = ConditionTokens(D, num_classes=3)
    timesteps, labels = torch.tensor([5, 900]), torch.tensor([3, 1])
    both = tokens(timesteps, labels)
    assert both.shape == (2, 2, D)
    assert torch.equal(both[:, 1], tokens.label(labels) + tokens.positions[:, 1])
    assert torch.equal(tokens(timesteps, labels * 0)[:, 0], both[:, 0])
    assert ConditionTokens(D, num_classes=0)(timesteps, None).shape == (2, 1, D)


def test_context_stands_in_front_and_goes_on_as_a_mean() -> None:
    torch.manual_seed(0)
    made = PlainMambaBlock(D, d_state=3).double()
    tokens, context = normal(2, 3, 4, D), normal(2, 1, D, seed=1)
    mixed, new_context = apply_block_with_tokens(made, tokens, context, "spatial")
    rows = [made(torch.cat([context[1:], tokens[1:, frame]], dim=1)) for frame in range(3)]
    torch.testing.assert_close(mixed[1], torch.cat([row[:, 1:] for row in rows]))
    torch.testing.assert_close(new_context[1], torch.stack([row[0, :1] for row in rows]).mean(0))


def test_residual_names_are_checked() -> None:
    with pytest.raises(UsageError, match=r"no residual 'Dit'; did you mean 'dit'"):
        AdaptiveMambaBlock(D, residual="Dit")
