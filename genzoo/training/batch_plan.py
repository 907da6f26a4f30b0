"""The batch arithmetic: what each process does of a global batch."""

from __future__ import annotations

from dataclasses import dataclass

from genzoo.core.errors import RecipeError


@dataclass(frozen=True)
class BatchPlan:
    """global batch = per_device x accumulation x processes."""

    batch_size: int
    per_device: int
    accumulation: int
    processes: int

    def __str__(self) -> str:
        return (
            f"global batch {self.batch_size} = {self.per_device} per device "
            f"x {self.accumulation} accumulation x {self.processes} processes"
        )


def plan_batch(batch_size: int, micro_batch_size: int | None, processes: int) -> BatchPlan:
    """Derive what each process does from the global batch. Raises RecipeError with the valid choices."""
    share, rest = divmod(batch_size, processes)
    if rest:
        near = sorted({max(1, share) * processes, (share + 1) * processes})
        raise RecipeError(
            f"train.batch_size: {batch_size} cannot be shared evenly by {processes} processes",
            fix=f"use {' or '.join(map(str, near))}, or one of {_listed(_divisors(batch_size))} processes",
        )
    per_device = micro_batch_size or share
    if share % per_device:
        raise RecipeError(
            f"train.micro_batch_size: {per_device} does not divide the {share} samples of each process "
            f"({batch_size} / {processes})",
            fix=f"use one of {_listed(_divisors(share))}",
        )
    return BatchPlan(batch_size, per_device, share // per_device, processes)


def smaller_micro_batches(plan: BatchPlan) -> list[int]:
    """Valid micro-batch sizes below the present one, largest first."""
    share = plan.per_device * plan.accumulation
    return [size for size in reversed(_divisors(share)) if size < plan.per_device]


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
