"""The loss of a step: how the prior term is weighed against the concept's own."""

from __future__ import annotations

import pytest
import torch

from genzoo.families.custom_diffusion.training.losses import concept_loss


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_prior_counts_with_its_weight(weight: float) -> None:
    draw = torch.Generator().manual_seed(0)
    prediction, target = (torch.randn(5, 3, 4, 6, generator=draw) for _ in range(2))
    mask = (torch.rand(5, 1, 4, 6, generator=draw) > 0.3).float()
    alone, _ = concept_loss(prediction[:2], target[:2], mask[:2], num_instances=2)
    both, prior = concept_loss(prediction, target, mask, num_instances=2, prior_loss_weight=weight)
    torch.testing.assert_close(prior, (prediction[2:] - target[2:]).square().mean())
    torch.testing.assert_close(both, alone + weight * prior)


def test_one_masked_mean_over_all_rows_has_no_weight() -> None:
    draw = torch.Generator().manual_seed(1)
    prediction, target = (torch.randn(3, 2, 4, 5, generator=draw) for _ in range(2))
    mask = torch.ones(3, 1, 4, 5)
    found = [
        concept_loss(prediction, target, mask, num_instances=1, prior="masked", prior_loss_weight=weight)[0]
        for weight in (0.5, 3.0)
    ]
    assert torch.equal(*found)
