"""Low-rank form of a concept's change: W = W_0 + u v per key and value projection."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from genzoo.core.errors import UsageError

Factors = tuple[Tensor, Tensor]
MEASURES = ("sum", "energy")


def choose_rank(values: Tensor, keep: float, *, measure: str = "sum", keep_crossing: bool = True) -> int:
    """How many singular values (descending) make up the share `keep` in [0, 1] of the whole.

    measure: the share is of their "sum" (the official rule) or of their squares, the "energy".
    keep_crossing: the value that crosses the share is kept, so a change never gets lost. Without it this is
    the official rule, which drops that value: rank 0 when one value dominates, and one less than all when
    every value is zero.
    """
    if measure not in MEASURES or not 0 <= keep <= 1:
        raise UsageError(
            f"cannot keep {keep} of the {measure}", fix=f"a share in [0, 1] of {' or '.join(MEASURES)}"
        )
    weights = values.double() ** (2 if measure == "energy" else 1)
    shares = weights.cumsum(0) / weights.sum()
    crossing = (shares > keep).nonzero()
    index = int(crossing[0]) if len(crossing) else len(values) - 1
    if not keep_crossing:
        return index
    num_nonzero = int((values > 0).sum())
    return min(index + 1, num_nonzero)


def compress_change(
    change: Tensor,
    *,
    keep: float = 0.6,
    rank: int | None = None,
    measure: str = "sum",
    keep_crossing: bool = True,
) -> Factors:
    """u (out, r), v (r, d) with u v near `change` (out, d); the decomposition runs in float64.

    rank: fixed, instead of the share `keep`. Factors have the dtype of `change`.
    """
    if rank is not None and rank < 1:
        raise UsageError(f"rank={rank} keeps nothing", fix="a rank of at least 1")
    U, values, V_t = torch.linalg.svd(change.double(), full_matrices=False)
    if rank is None:
        rank = choose_rank(values, keep, measure=measure, keep_crossing=keep_crossing)
    u, v = U[:, :rank] * values[:rank], V_t[:rank]
    return u.to(change.dtype).contiguous(), v.to(change.dtype).contiguous()


def compress_weights(
    weights: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    *,
    keep: float = 0.6,
    rank: int | None = None,
    measure: str = "sum",
    keep_crossing: bool = True,
) -> dict[str, Factors]:
    """The factors of every projection in `weights`, taken against the same names of `base`."""
    return {
        name: compress_change(
            weight.float() - base[name].float(),
            keep=keep,
            rank=rank,
            measure=measure,
            keep_crossing=keep_crossing,
        )
        for name, weight in weights.items()
    }


def exact_factors(change: Tensor) -> Factors:
    """u, v of the smallest rank that reproduces `change` (out, d) to float32 accuracy; at least rank 1.

    Both factors carry the square root of each singular value, which keeps half-precision storage accurate.
    """
    U, values, V_t = torch.linalg.svd(change.double(), full_matrices=False)
    rank = max(1, int((values > 1e-8 * values[0]).sum()))
    root = values[:rank].sqrt()
    return (U[:, :rank] * root).float().contiguous(), (root[:, None] * V_t[:rank]).float().contiguous()
