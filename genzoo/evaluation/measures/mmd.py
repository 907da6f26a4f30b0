"""Maximum mean discrepancy of all rows, in blocks: CMMD and the KID without subsets.

MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) (Gretton et al. 2012). Memory is one block of kernel
values; arithmetic is float64. Every measure here is made of row sums, and so is its standard error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError, ShapeError
from genzoo.evaluation.statistics import check_features

if TYPE_CHECKING:
    from torch import Tensor

Kernel = Callable[["Tensor", "Tensor"], "Tensor"]
BLOCK = 1024
SIGMA, SCALE = 10.0, 1000.0  # of CMMD, as published


@dataclass(frozen=True)
class KernelSums:
    """What MMD is made of, for n generated rows x and m reference rows y.

    within_x: (n,) sum of k(x_i, x_j) over j other than i.   diagonal_x: (n,) k(x_i, x_i).   cross_x: (n,) sum
    over y.   within_y, diagonal_y, cross_y: (m,), the same from the other side.
    """

    within_x: Tensor
    diagonal_x: Tensor
    cross_x: Tensor
    within_y: Tensor
    diagonal_y: Tensor
    cross_y: Tensor

    def unbiased(self) -> float:
        """Pairs of a row with itself left out; below 0 now and then for equal distributions."""
        n, m = len(self.cross_x), len(self.cross_y)
        within = self.within_x.sum() / (n * (n - 1)) + self.within_y.sum() / (m * (m - 1))
        return float(within - 2 * self.cross_x.sum() / (n * m))

    def biased(self) -> float:
        """Pairs of a row with itself kept; never below 0."""
        n, m = len(self.cross_x), len(self.cross_y)
        within_x = (self.within_x.sum() + self.diagonal_x.sum()) / n**2
        within_y = (self.within_y.sum() + self.diagonal_y.sum()) / m**2
        return float(within_x + within_y - 2 * self.cross_x.sum() / (n * m))

    def terms(self) -> tuple[Tensor, Tensor]:
        """(n,) and (m,): h_i = mean k(x_i, other x) - mean k(x_i, y), whose spread is MMD's."""
        n, m = len(self.cross_x), len(self.cross_y)
        return self.within_x / (n - 1) - self.cross_x / m, self.within_y / (m - 1) - self.cross_y / n


def kernel_sums(generated: Tensor, reference: Tensor, kernel: Kernel, *, block: int = BLOCK) -> KernelSums:
    """Row sums of a kernel over two sets; generated: (n, d), reference: (m, d), each of two rows or more."""
    if generated.dim() != 2 or generated.shape[1:] != reference.shape[1:]:
        raise ShapeError(f"features do not fit: {tuple(generated.shape)} and {tuple(reference.shape)}")
    if min(len(generated), len(reference)) < 2:
        raise DataError(f"MMD needs 2 rows of each set, got {len(generated)} and {len(reference)}")
    check_features(generated)
    check_features(reference)
    cross_x, cross_y = _cross_sums(generated, reference, kernel, block)
    return KernelSums(
        *_within_sums(generated, kernel, block), cross_x, *_within_sums(reference, kernel, block), cross_y
    )


def _parts(rows: Tensor, block: int) -> list[tuple[int, Tensor]]:
    return list(zip(range(0, len(rows), block), rows.split(block), strict=True))


def _within_sums(rows: Tensor, kernel: Kernel, block: int) -> tuple[Tensor, Tensor]:
    sums = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    diagonal = torch.zeros_like(sums)
    parts = _parts(rows, block)
    for position, (first, part) in enumerate(parts):
        for other, others in parts[position:]:  # the kernel is symmetric: half of the blocks will do
            values = kernel(part.double(), others.double())
            if other == first:
                diagonal[first : first + len(part)] = values.diagonal()
                values = values.clone().fill_diagonal_(0)
            else:
                sums[other : other + len(others)] += values.sum(0)
            sums[first : first + len(part)] += values.sum(1)
    return sums, diagonal


def _cross_sums(x: Tensor, y: Tensor, kernel: Kernel, block: int) -> tuple[Tensor, Tensor]:
    sums_x = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    sums_y = torch.zeros(len(y), dtype=torch.float64, device=x.device)
    for first, part in _parts(x, block):
        for other, others in _parts(y, block):
            values = kernel(part.double(), others.double())
            sums_x[first : first + len(part)] += values.sum(1)
            sums_y[other : other + len(others)] += values.sum(0)
    return sums_x, sums_y


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """KID's kernel, (x.y/d + 1)^3 (Binkowski et al. 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(sigma: float = SIGMA) -> Kernel:
    """exp(-|x - y|²/(2 sigma²)) less 1, which no MMD notices: near 1 that keeps ten more digits."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        squared = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T
        return torch.expm1(-squared.clamp_min(0) / (2 * sigma**2))

    return kernel


def unit_rows(features: Tensor) -> Tensor:
    """Each row divided by its length, as CLIP's embeddings are compared."""
    return features / features.norm(dim=1, keepdim=True).clamp_min(torch.finfo(features.dtype).tiny)


def cmmd(generated: Tensor, reference: Tensor, *, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """CMMD = scale * MMD² with a Gaussian kernel, biased, no square root (Jayasumana et al. 2024).

    generated: (n, d), reference: (m, d), unit rows of CLIP. For such the kernel is almost linear, so this is
    about 10 |mean x - mean y|²: sets of equal means are not told apart, however unlike they are. Equal
    distributions score about 1000 (1/n + 1/m) (1 - mean k), so compare at equal n and m.
    """
    return scale * kernel_sums(generated, reference, gaussian(sigma)).biased()


def kid_of_all_rows(generated: Tensor, reference: Tensor) -> float:
    """The unbiased KID of all rows at once: one value, without subsets, and with an honest interval."""
    return kernel_sums(generated, reference, cubic).unbiased()
