"""Codes that are never chosen get no gradient; here they start anew where features are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

from genzoo.autoregression.next_scale import contribution, shrink

if TYPE_CHECKING:
    from genzoo.families.car.vqvae.quantizer import MultiScaleQuantizer


@torch.no_grad()
def revive_codes(quantizer: MultiScaleQuantizer, f: Tensor, *, share: float) -> None:
    """Move codes out of use to what is to be coded in this batch, chosen by torch's own generator.

    f: (b, c, h, w).   share: of the average number of hits, below which a code is out of use.
    """
    hits, weight = quantizer.ema_vocab_hit_SV, quantizer.weight
    dead = (hits.sum(dim=0) <= share * hits.sum() / hits.shape[1]).nonzero()[:, 0]
    if not len(dead):
        return
    candidates = what_codes_stand_for(quantizer, f)
    moved = candidates[torch.randint(len(candidates), (len(dead),)).to(f.device)].to(weight.dtype)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(moved, 0)
    weight[dead] = moved
    # as if chosen as often as others: a while to be chosen before they are moved again
    hits[:, dead] = hits.mean(dim=1, keepdim=True)


def what_codes_stand_for(quantizer: MultiScaleQuantizer, f: Tensor) -> Tensor:
    """What is left to code at every scale if each were coded exactly: (positions of all scales, c)."""
    rest, left, count = f, [], len(quantizer.sizes)
    for scale, size in enumerate(quantizer.sizes):
        left.append(shrink(rest, size))
        rest = rest - contribution(left[-1], scale, count, quantizer.sizes[-1], quantizer.refine)
    return torch.cat([rearrange(map_, "b c h w -> (b h w) c") for map_ in left])
