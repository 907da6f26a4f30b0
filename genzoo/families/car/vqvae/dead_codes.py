"""Codes that are never chosen get no gradient; these functions find them, and where they start anew."""

from __future__ import annotations

import torch
from torch import Tensor


def dead_codes(hits: Tensor, share: float) -> Tensor:
    """Numbers (n,) of the codes out of use.

    hits: (scales, v), how often each was chosen.   share: of the average, below which a code is out of use.
    """
    return (hits.sum(dim=0) <= share * hits.sum() / hits.shape[1]).nonzero()[:, 0]


def drawn_anew(candidates: Tensor, num: int) -> Tensor:
    """`num` of the candidates, chosen by torch's own generator, alike on all processes: (num, c).

    candidates: (n, c).
    """
    chosen = candidates[torch.randint(len(candidates), (num,)).to(candidates.device)]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast(chosen, 0)
    return chosen
