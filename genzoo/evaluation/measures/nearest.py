"""The nearest rows of another set, exact, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.statistics import check_features

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1024


class Neighbours(NamedTuple):
    """distances: (n, k), ascending.   indices: (n, k) into the reference."""

    distances: Tensor
    indices: Tensor


def nearest(queries: Tensor, reference: Tensor, *, k: int = 1, block: int = BLOCK) -> Neighbours:
    """The k nearest reference rows of each query, Euclidean, exact; memory is one block of rows at a time.

    queries: (n, d), reference: (m, d).
    """
    if queries.dim() != 2 or queries.shape[1:] != reference.shape[1:]:
        raise ShapeError(f"features do not fit: {tuple(queries.shape)} and {tuple(reference.shape)}")
    if len(reference) < k:
        raise DataError(f"{k} nearest images need as many reference images, got {len(reference)}")
    check_features(queries)
    found = []
    for part in torch.split(queries, block):
        best = None
        for start in range(0, len(reference), block):
            # the direct form: |a|^2 + |b|^2 - 2ab loses exactly the small distances that copies have
            distances = torch.cdist(
                part, reference[start : start + block], compute_mode="donot_use_mm_for_euclid_dist"
            )
            values, indices = distances.topk(min(k, distances.shape[1]), largest=False)
            best = _keep_nearest(best, Neighbours(values, indices + start), k)
        assert best is not None
        found.append(best)
    return Neighbours(
        torch.cat([part.distances for part in found]), torch.cat([part.indices for part in found])
    )


def _keep_nearest(best: Neighbours | None, new: Neighbours, k: int) -> Neighbours:
    if best is None:
        return new
    distances = torch.cat([best.distances, new.distances], 1)
    indices = torch.cat([best.indices, new.indices], 1)
    values, order = distances.topk(min(k, distances.shape[1]), largest=False)
    return Neighbours(values, indices.gather(1, order))
