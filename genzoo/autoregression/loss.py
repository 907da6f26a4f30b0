"""Cross-entropy of the tokens of all scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from genzoo.autoregression.scales import scale_bounds
from genzoo.core.errors import ShapeError
from genzoo.core.sizes import Size


def token_losses(logits: Tensor, ids: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every token in float32.   logits: (b, l, v).   ids: (b, l).   Returns (b, l)."""
    if logits.shape[:2] != ids.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and ids {tuple(ids.shape)} differ in batch or length")
    flat = cross_entropy(
        logits.float().flatten(0, 1), ids.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return flat.view_as(ids)


def next_scale_loss(
    logits: Tensor,
    ids: Tensor,
    patch_nums: Sequence[Size],
    *,
    label_smoothing: float = 0.0,
    num_scales: int | None = None,
    last_scale_weight: float = 1.0,
) -> Mapping[str, Tensor]:
    """Mean cross-entropy over all tokens as "loss", and beside it the share of right tokens, in percent.

    logits: (b, l, v).   ids: (b, l), the tokens of all scales.   For training that adds scales one by one
    num_scales says how many there are so far, whose tokens weigh as they will among all, and
    last_scale_weight what the newest one's are multiplied by.   "cross_entropy_last" and "accuracy_last"
    look at the newest scale only.
    """
    bounds = scale_bounds(patch_nums)
    begin, end = bounds[-1 if num_scales is None else num_scales - 1]
    losses = token_losses(logits, ids, label_smoothing=label_smoothing)
    weights = torch.full((ids.shape[1],), 1.0 / bounds[-1][1], device=losses.device)
    weights[begin:end] *= last_scale_weight
    with torch.no_grad():
        plain = losses if not label_smoothing else token_losses(logits, ids)
        right = (logits.argmax(dim=-1) == ids).float() * 100
    return {
        "loss": (losses * weights).sum(dim=1).mean(),
        "cross_entropy": plain.detach().mean(),
        "cross_entropy_last": plain.detach()[:, begin:end].mean(),
        "accuracy": right.mean(),
        "accuracy_last": right[:, begin:end].mean(),
    }
