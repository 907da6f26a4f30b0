"""t-SNE: affinities of the perplexity asked for, the right gradient, neighbours kept, repeatable."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.measures import tsne as module
from genzoo.evaluation.measures.tsne import (
    affinities,
    conditional,
    divergence,
    gradient,
    principal_components,
    tsne,
)


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def groups() -> tuple[Tensor, Tensor]:
    """Three clouds of 20 points in 12 dimensions, five deviations apart, and whose each is."""
    labels = torch.arange(60) % 3
    return rows(60, 12) + 5 * torch.eye(12, dtype=torch.float64)[labels] * 2, labels


def neighbours(x: Tensor, k: int) -> Tensor:
    return torch.cdist(x, x).fill_diagonal_(torch.inf).topk(k, largest=False).indices


@pytest.mark.parametrize("perplexity", [2.5, 9.0, 31.0])
def test_every_row_has_the_perplexity_asked_for(perplexity: float) -> None:
    p = conditional(rows(47, 5) * torch.logspace(-1, 1, 47, dtype=torch.float64)[:, None], perplexity)
    entropy = -(p * p.clamp_min(1e-300).log()).sum(1)
    torch.testing.assert_close(entropy, torch.full_like(entropy, math.log(perplexity)), atol=1e-6, rtol=0)
    assert p.diagonal().abs().max() == 0


def test_affinities_are_symmetric_and_sum_to_one() -> None:
    p = affinities(rows(23, 4), 5.0)
    assert torch.equal(p, p.T)
    assert float(p.sum()) == pytest.approx(1.0)


def test_the_gradient_is_that_of_the_divergence() -> None:
    p, y = affinities(rows(17, 6), 4.0), rows(17, 2, seed=1).requires_grad_()
    (expected,) = torch.autograd.grad(divergence(p, y), y)
    torch.testing.assert_close(gradient(p, y.detach()), expected, atol=1e-12, rtol=1e-9)


def test_groups_stay_together_and_neighbours_are_kept() -> None:
    x, labels = groups()
    y = tsne(x, perplexity=8, steps=600)
    assert y.shape == (60, 2)
    # the descent is chaotic: rounding, which processors do in other orders, may leave a point aside
    assert (labels[neighbours(y, 5)] == labels[:, None]).double().mean() > 0.95  # by chance: 0.32
    kept = (neighbours(x, 8)[:, :, None] == neighbours(y, 8)[:, None, :]).any(-1).double().mean().item()
    linear = neighbours(principal_components(x, 2), 8)
    by_components = (neighbours(x, 8)[:, :, None] == linear[:, None, :]).any(-1).double().mean().item()
    assert kept > by_components
    assert kept > 0.5  # 8 of 59 by chance: 0.14


def test_steps_lower_the_divergence() -> None:
    x, _ = groups()
    p = affinities(principal_components(x, 50), 8.0)
    losses = [divergence(p, tsne(x, perplexity=8, steps=steps)).item() for steps in (40, 120, 360)]
    assert losses == sorted(losses, reverse=True)


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    x, before = rows(31, 7), torch.random.get_rng_state()
    first = tsne(x, perplexity=5, steps=60, seed=3)
    assert torch.equal(first, tsne(x, perplexity=5, steps=60, seed=3))
    assert not torch.equal(first, tsne(x, perplexity=5, steps=60, seed=4))
    assert torch.equal(before, torch.random.get_rng_state())


def test_equal_points_and_single_columns_have_finite_places() -> None:
    x = torch.cat([torch.zeros(9, 1), torch.ones(9, 1)])
    y = tsne(x, perplexity=4, steps=80)
    assert bool(y.isfinite().all())
    assert torch.pdist(y).min() > 0


def test_principal_components_keep_distances_and_their_signs() -> None:
    x = rows(19, 6)
    torch.testing.assert_close(
        torch.cdist(principal_components(x, 6), principal_components(x, 6)), torch.cdist(x, x)
    )
    assert torch.equal(principal_components(x, 2), principal_components(x.clone(), 3)[:, :2])


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (rows(10, 3), {"perplexity": 9.0}, UsageError, "perplexity is 9, with 10 points"),
        (rows(10, 3), {"perplexity": 1.0}, UsageError, "between 1"),
        (rows(10, 3), {"perplexity": 3.0, "steps": 0}, UsageError, "steps is 0"),
        (rows(10, 3) * math.nan, {"perplexity": 3.0}, DataError, "finite"),
    ],
)
def test_what_has_no_embedding_is_refused(
    x: Tensor, options: dict[str, float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tsne(x, **options)  # type: ignore[arg-type]


def test_more_points_than_memory_is_meant_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 12)
    with pytest.raises(DataError, match="t-SNE of 13 points"):
        tsne(rows(13, 3), perplexity=3)
