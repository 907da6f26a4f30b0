"""Mean and covariance of features, gathered as they come: float64, mergeable, only the moments are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from genzoo.core.errors import DataError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from genzoo.core.processes import World

BLOCK = 1024  # rows folded into the scatter at once: one matrix product instead of many thin ones


@dataclass(frozen=True)
class Gaussian:
    """mean: (d,) float64.   covariance: (d, d) float64.   count: number of images, None when a file omits it.

    ddof: 1 when the covariance was divided by count - 1 (numpy, FID), 0 when by count (StyleGAN-V).
    """

    mean: Tensor
    covariance: Tensor
    count: int | None = None
    ddof: int = 1


class FeatureStatistics:
    """Streaming first and second moments.

    Rows are folded in fixed blocks of 1,024 around the first block's mean, so the result does not depend, bit
    for bit, on how the rows were batched, and large feature offsets do not cancel. Statistics of several
    processes are joined by `merge`, in rank order.
    """

    def __init__(self) -> None:
        self.count = 0
        self._pending: list[Tensor] = []
        self._shift: Tensor | None = None
        self._total: Tensor | None = None  # (d,) sum of rows less the shift
        self._scatter: Tensor | None = None  # (d, d) sum of outer products of rows less the shift

    def update(self, features: Tensor) -> None:
        """Add rows; features: (b, d), any float dtype. Raises NonFiniteError naming the first bad row."""
        check_features(features, first=self.count)
        if self._width() not in (None, features.shape[1]):
            raise ShapeError(
                f"features have {features.shape[1]} dimensions, the ones before had {self._width()}"
            )
        # MPS has no float64
        device = "cpu" if features.device.type == "mps" else features.device
        self._pending.append(features.detach().to(device=device, dtype=torch.float64))
        self.count += len(features)
        if sum(len(rows) for rows in self._pending) >= BLOCK:
            self._fold(keep_remainder=True)

    def _width(self) -> int | None:
        if self._shift is not None:
            return self._shift.shape[0]
        return self._pending[0].shape[1] if self._pending else None

    def _fold(self, *, keep_remainder: bool) -> None:
        rows = torch.cat(self._pending) if self._pending else None
        self._pending = []
        while rows is not None and len(rows) and (len(rows) >= BLOCK or not keep_remainder):
            block, rows = rows[:BLOCK], rows[BLOCK:]
            if self._shift is None or self._total is None or self._scatter is None:
                self._shift = block.mean(0)
                self._total = torch.zeros_like(self._shift)
                self._scatter = torch.zeros_like(self._shift).repeat(len(self._shift), 1)
            centred = block - self._shift
            self._total += centred.sum(0)
            self._scatter.addmm_(centred.T, centred)
        if rows is not None and len(rows):
            self._pending = [rows]

    def _moments(self) -> tuple[int, Tensor, Tensor]:
        """(count, mean, scatter about the mean)."""
        self._fold(keep_remainder=False)
        if self._shift is None or self._total is None or self._scatter is None:
            raise DataError("there are no features: no image was read")
        mean = self._total / self.count
        return self.count, self._shift + mean, self._scatter - self.count * torch.outer(mean, mean)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Statistics of both sets of rows together (Chan's update); neither operand keeps unfolded rows."""
        if not self.count or not other.count:
            return self if self.count else other
        (n_a, mean_a, scatter_a), (n_b, mean_b, scatter_b) = self._moments(), other._moments()
        if mean_a.shape != mean_b.shape:
            raise ShapeError(f"cannot merge statistics of {len(mean_a)} and {len(mean_b)} dimensions")
        delta = mean_b.to(mean_a.device) - mean_a
        joined = FeatureStatistics()
        joined.count = n_a + n_b
        joined._shift = mean_a + delta * (n_b / joined.count)
        joined._total = torch.zeros_like(mean_a)
        between = torch.outer(delta, delta) * (n_a * n_b / joined.count)
        joined._scatter = scatter_a + scatter_b.to(mean_a.device) + between
        return joined

    def on_cpu(self) -> FeatureStatistics:
        """The same moments on the CPU."""
        count, mean, scatter = self._moments()
        return _from_moments(count, mean.cpu(), scatter.cpu())

    def gaussian(self, *, ddof: int = 1) -> Gaussian:
        """Mean and covariance on the CPU, divided by n - ddof. Raises DataError below 2 rows."""
        if self.count < 2:
            raise DataError(f"a Fréchet distance needs at least 2 pictures, {self.count} was given")
        count, mean, scatter = self._moments()
        covariance = (scatter + scatter.T) / (2 * (count - ddof))
        return Gaussian(mean.cpu(), covariance.cpu(), count, ddof)


def check_features(features: Tensor, *, first: int = 0) -> None:
    """Features must be (b, d) and finite; `first` is the index of their first image, for the message."""
    if features.dim() != 2:
        raise ShapeError(f"features must be (images, dimensions), got {tuple(features.shape)}")
    finite = [torch.isfinite(part).all(dim=1) for part in features.split(BLOCK)]  # of many rows, few at once
    bad = (~torch.cat(finite)).nonzero().flatten()
    if len(bad):
        raise NonFiniteError(
            f"the features of image {first + int(bad[0])} are not finite ({len(bad)} such in its batch)",
            fix="look at that image, and run the feature network in float32",
        )


def merge_all(parts: Sequence[FeatureStatistics]) -> FeatureStatistics:
    """Join the statistics of several processes or shards, in the order given."""
    joined = FeatureStatistics()
    for part in parts:
        joined = joined.merge(part)
    return joined


def gather_statistics(part: FeatureStatistics, world: World) -> FeatureStatistics:
    """Every process's statistics joined in rank order, in every process."""
    if world.size == 1:
        return part
    count, mean, scatter = part._moments() if part.count else (0, torch.empty(0), torch.empty(0))
    everyone = world.gather((count, mean.cpu(), scatter.cpu()))
    return merge_all([_from_moments(*moments) for moments in everyone if moments[0]])


def _from_moments(count: int, mean: Tensor, scatter: Tensor) -> FeatureStatistics:
    part = FeatureStatistics()
    part.count, part._shift, part._total, part._scatter = count, mean, torch.zeros_like(mean), scatter
    return part
