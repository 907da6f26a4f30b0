"""Losses of a step on concept images and regularisation images; pure functions of predictions."""

from __future__ import annotations

from torch import Tensor

from genzoo.core.errors import UsageError


def masked_mse(
    prediction: Tensor, target: Tensor, mask: Tensor, *, normalize_mask_channels: bool = False
) -> Tensor:
    """Mean over the batch of each sample's masked squared error, ().

    prediction, target: (b, c, h, w).   mask: (b, 1, h, w) of 0 and 1.   The official codes divide the sum
    over all c channels by the number of masked places, so the value is c times a mean per element;
    normalize_mask_channels divides by the channels too. A sample whose mask is empty counts as zero.
    """
    squared = ((prediction.float() - target.float()).square() * mask).sum(dim=(1, 2, 3))
    places = mask.sum(dim=(1, 2, 3)).clamp_min(1)
    per_sample = squared / places
    return (per_sample / prediction.shape[1] if normalize_mask_channels else per_sample).mean()


def concept_loss(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    num_instances: int,
    prior_loss_weight: float = 1.0,
    prior: str = "plain",
    normalize_mask_channels: bool = False,
) -> tuple[Tensor, Tensor]:
    """The loss and its prior term, both (). The first num_instances rows are concept images, the rest prior.

    prior: "plain", a mean squared error without mask, as the official and the example diffusers trainers
    weigh it (the concept counts four times as much on four latent channels); or "masked", one masked mean
    over all rows, as the official original trainer does, where prior_loss_weight has no part. Without prior
    rows, the prior term is zero.
    """
    if prior not in ("plain", "masked"):
        raise UsageError(f"prior={prior!r} is not known", fix="plain or masked")
    options = {"normalize_mask_channels": normalize_mask_channels}
    rest = slice(num_instances, None)
    if len(prediction) == num_instances:
        return masked_mse(prediction, target, mask, **options), prediction.float().new_zeros(())
    if prior == "masked":
        prior_term = masked_mse(prediction[rest], target[rest], mask[rest], **options)
        return masked_mse(prediction, target, mask, **options), prior_term
    first = slice(num_instances)
    instance = masked_mse(prediction[first], target[first], mask[first], **options)
    prior_term = (prediction[rest].float() - target[rest].float()).square().mean()
    return instance + prior_loss_weight * prior_term, prior_term
