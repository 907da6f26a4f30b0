"""Exact t-SNE (van der Maaten and Hinton, 2008): points of many dimensions in a plane, neighbours kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MOST = 5000  # points: a matrix of all pairs is then 200 MB
EXAGGERATED, EXAGGERATION = 250, 12.0  # steps in which pairs attract each other so many times as much
SPREAD = 1e-4  # of the first positions


def tsne(
    features: Tensor, *, perplexity: float = 30.0, steps: int = 1000, seed: int = 0, components: int = 50
) -> Tensor:
    """Positions (n, 2) of features (n, d), in float64: near points stay near, and that is all that they say.

    Minimises KL(P || Q) with p_ij the symmetric affinities of Gaussians whose entropy is log perplexity in
    each row, on the first `components` principal components, and q_ij of a Student t with one degree of
    freedom. Momentum with gains and early exaggeration, as the authors' code; rate n / 48, at least 50, and
    a beginning at the two principal components, as later practice (Kobak and Berens, 2019).
    Distances between groups and sizes of groups mean nothing. seed: of a small noise that parts equal points;
    the same seed gives the same positions on the same machine.
    """
    x = features.double().flatten(1)
    _check(x, perplexity, steps)
    x = principal_components(x, components)
    p = affinities(x, perplexity)
    noise = torch.randn(len(x), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    first = torch.nn.functional.pad(x[:, :2], (0, max(0, 2 - x.shape[1])))
    y = SPREAD * (first / first[:, 0].std().clamp_min(1e-12) + 1e-2 * noise)
    update, gains = torch.zeros_like(y), torch.ones_like(y)
    rate = max(len(x) / (4 * EXAGGERATION), 50.0)
    for step in range(steps):
        early = step < min(EXAGGERATED, steps // 2)
        slope = gradient(p * EXAGGERATION if early else p, y)
        gains = torch.where(slope.sign() == update.sign(), gains * 0.8, gains + 0.2).clamp_min(0.01)
        update = (0.5 if early else 0.8) * update - rate * gains * slope
        y = y + update
    return y - y.mean(0)


def principal_components(x: Tensor, count: int) -> Tensor:
    """The first `count` principal components of rows (n, d), each with the sign of its largest entry."""
    centred = x - x.mean(0)
    left, sizes, right = torch.linalg.svd(centred, full_matrices=False)
    signs = right.gather(1, right.abs().argmax(1, keepdim=True)).sign().squeeze(1)
    found: Tensor = (left * sizes * signs)[:, :count]
    return found


def affinities(x: Tensor, perplexity: float) -> Tensor:
    """Symmetric p_ij of rows (n, d), which sum to one; each row's own are a Gaussian of that perplexity."""
    rows = conditional(x, perplexity)
    return (rows + rows.T) / (2 * len(x))


def conditional(x: Tensor, perplexity: float) -> Tensor:
    """p_j|i: rows of one, of entropy log perplexity, by bisection of the precision of each row."""
    distances = torch.cdist(x, x).square()
    distances.fill_diagonal_(torch.inf)
    distances = distances - distances.amin(1, keepdim=True)  # the largest exponent is 0
    scale = distances.where(distances.isfinite(), torch.zeros(())).mean(1, keepdim=True).clamp_min(1e-12)
    low, high = torch.zeros_like(scale), torch.full_like(scale, torch.inf)
    precision = 1 / scale
    for _ in range(64):
        p = torch.softmax(-precision * distances, 1)
        wide = -(p * p.clamp_min(1e-300).log()).sum(1, keepdim=True) > math.log(perplexity)
        low, high = torch.where(wide, precision, low), torch.where(wide, high, precision)
        precision = torch.where(high.isinf(), precision * 2, (low + high) / 2)
    return torch.softmax(-precision * distances, 1)


def gradient(p: Tensor, y: Tensor) -> Tensor:
    """Of KL(P || Q) in positions (n, 2): 4 sum_j (p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2)."""
    near = _nearness(y)
    pull = (p - near / near.sum()) * near
    return 4 * (pull.sum(1, keepdim=True) * y - pull @ y)


def divergence(p: Tensor, y: Tensor) -> Tensor:
    """KL(P || Q), what is minimised."""
    near = _nearness(y)
    q = (near / near.sum()).clamp_min(1e-300)
    return (p * (p.clamp_min(1e-300) / q).log()).sum()


def _nearness(y: Tensor) -> Tensor:
    squares = y.square().sum(1)
    distances = (squares[:, None] + squares[None] - 2 * y @ y.T).clamp_min(0)
    return (1 / (1 + distances)) * (1 - torch.eye(len(y), dtype=y.dtype))


def _check(x: Tensor, perplexity: float, steps: int) -> None:
    if len(x) > MOST:
        raise DataError(
            f"t-SNE of {len(x):,} points", why=f"all pairs are held; {MOST:,} points are the most"
        )
    if not x.isfinite().all():
        raise DataError("t-SNE needs finite features", why="some are infinite or not a number")
    if steps < 1:
        raise UsageError(f"steps is {steps}", fix="take one at least")
    if not 1 < perplexity < len(x) - 1:
        raise UsageError(
            f"perplexity is {perplexity:g}, with {len(x)} points",
            fix="it lies between 1 and their number less one",
        )
