"""Noise schedules: the tables of a Gaussian diffusion in float64, and their respacing to fewer steps.

Index 0 is the least noisy timestep. Tables are kept on the CPU in float64; `gather` casts what it looks up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.registry import SCHEDULES


def linear_betas(num_timesteps: int) -> np.ndarray:
    """1e-4 to 2e-2 over 1000 timesteps (DDPM); the ends scale with 1000 / T, so the total noise stays."""
    scale = 1000 / num_timesteps
    return np.linspace(scale * 1e-4, scale * 2e-2, num_timesteps, dtype=np.float64)


def cosine_betas(num_timesteps: int) -> np.ndarray:
    """The squared-cosine schedule (Improved DDPM Eq. 17): offset 0.008, betas capped at 0.999."""

    def signal(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = range(num_timesteps)
    return np.array(
        [min(1 - signal((i + 1) / num_timesteps) / signal(i / num_timesteps), 0.999) for i in steps]
    )


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The tables of one diffusion process.

    betas: (T,) float64 in (0, 1).   timestep_map: (T,) int64, the timestep the model was trained with at
    each index. Names follow DDPM: alphas_cumprod is alpha-bar; `prev` is one step less noisy, `next` one
    step noisier.
    """

    betas: Tensor
    timestep_map: Tensor
    _cast: dict[tuple[str, torch.device, torch.dtype], Tensor] = field(
        default_factory=dict, repr=False, init=False
    )

    @property
    def num_timesteps(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        return torch.cumprod(1 - self.betas, 0)

    @cached_property
    def alphas_cumprod_prev(self) -> Tensor:
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])

    @cached_property
    def alphas_cumprod_next(self) -> Tensor:
        return torch.cat([self.alphas_cumprod[1:], torch.zeros(1, dtype=torch.float64)])

    @cached_property
    def sqrt_alphas_cumprod(self) -> Tensor:
        return self.alphas_cumprod.sqrt()

    @cached_property
    def sqrt_one_minus_alphas_cumprod(self) -> Tensor:
        return (1 - self.alphas_cumprod).sqrt()

    @cached_property
    def log_one_minus_alphas_cumprod(self) -> Tensor:
        return (1 - self.alphas_cumprod).log()

    @cached_property
    def sqrt_recip_alphas_cumprod(self) -> Tensor:
        return (1 / self.alphas_cumprod).sqrt()

    @cached_property
    def sqrt_recipm1_alphas_cumprod(self) -> Tensor:
        return (1 / self.alphas_cumprod - 1).sqrt()

    @cached_property
    def log_betas(self) -> Tensor:
        return self.betas.log()

    @cached_property
    def posterior_variance(self) -> Tensor:
        """Variance of q(x_{t-1} | x_t, x_0), DDPM Eq. 7; zero at t = 0."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance_clipped(self) -> Tensor:
        """Log of the posterior variance; the minus infinity at t = 0 is replaced by the value at t = 1."""
        variance = self.posterior_variance
        # one single timestep has no value to borrow: beta keeps the logarithm finite
        first = variance[1:2] if len(variance) > 1 else self.betas
        return torch.cat([first, variance[1:]]).log()

    @cached_property
    def posterior_mean_coef1(self) -> Tensor:
        """Weight of x_0 in the posterior mean."""
        return self.betas * self.alphas_cumprod_prev.sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> Tensor:
        """Weight of x_t in the posterior mean."""
        return (1 - self.alphas_cumprod_prev) * (1 - self.betas).sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def fixed_large_variance(self) -> Tensor:
        """Beta as the variance of the reverse step; the posterior's value at t = 1 in place of beta_0."""
        return (
            torch.cat([self.posterior_variance[1:2], self.betas[1:]]) if len(self.betas) > 1 else self.betas
        )

    def gather(self, table: str, timesteps: Tensor, like: Tensor) -> Tensor:
        """Values of a table at `timesteps` (b,), shaped (b, 1, ...) to broadcast over `like`."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        key = (table, like.device, dtype)
        if key not in self._cast:
            self._cast[key] = getattr(self, table).to(dtype).to(like.device)
        values = self._cast[key][timesteps.to(like.device)]
        return values.reshape(-1, *[1] * (like.ndim - 1))

    def timesteps_at(self, level: Tensor) -> Tensor:
        """Indices at noise levels in [0, 1), 0 the noisiest, (b,) int64."""
        return ((1 - level) * self.num_timesteps).ceil().long() - 1

    def respace(self, steps: int | str | Sequence[int]) -> NoiseSchedule:
        """The same process seen at fewer timesteps: alpha-bar is kept at those, betas follow from its ratios.

        steps: see `respaced_timesteps`.
        """
        return self.keep(respaced_timesteps(self.num_timesteps, steps))

    def keep(self, indices: Sequence[int]) -> NoiseSchedule:
        """The same process seen at these indices only (ascending)."""
        kept = torch.tensor(list(indices))
        alphas_cumprod = self.alphas_cumprod[kept]
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
        return NoiseSchedule(1 - alphas_cumprod / previous, self.timestep_map[kept])


def make_schedule(
    name: str = "linear", *, num_timesteps: int = 1000, respacing: int | str | Sequence[int] | None = None
) -> NoiseSchedule:
    """A schedule by name, such as "linear" or "cosine", optionally respaced.

    SCHEDULES holds functions num_timesteps -> betas (T,) float64 in (0, 1), the least noisy first.
    """
    betas_of = SCHEDULES.get(name)
    if num_timesteps < 1:
        raise UsageError(f"a noise schedule needs at least one timestep, got num_timesteps={num_timesteps}")
    betas = torch.from_numpy(betas_of(num_timesteps))
    largest = float(betas.max())
    if largest >= 1:
        raise UsageError(
            f"the {name} schedule with T={num_timesteps} ends with beta {largest:.3g}, not below 1",
            fix="use more timesteps, or the cosine schedule",
        )
    schedule = NoiseSchedule(betas, torch.arange(num_timesteps))
    return schedule if respacing in (None, "") else schedule.respace(respacing)


def respaced_timesteps(num_timesteps: int, steps: int | str | Sequence[int]) -> list[int]:
    """Which of `num_timesteps` to keep, ascending.

    steps: a count (250 or "250") spreads evenly over the whole range, both ends included; "ddim50" uses the
    smallest constant stride that gives exactly 50; "10,15,20" or [10, 15, 20] cuts the range into as many
    equal sections and spreads each count over its own.
    """
    if isinstance(steps, str) and steps.startswith("ddim"):
        return _constant_stride(num_timesteps, _counts(steps.removeprefix("ddim"), steps)[0])
    counts = [steps] if isinstance(steps, int) else _counts(steps, steps)
    size, extra = divmod(num_timesteps, len(counts))
    kept: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        length = size + (section < extra)
        kept += [start + offset for offset in _spread(length, count)]
        start += length
    return kept


def _counts(steps: str | Sequence[int], original: object) -> list[int]:
    parts = steps.split(",") if isinstance(steps, str) else list(steps)
    try:
        counts = [int(part) for part in parts]
    except (TypeError, ValueError):
        counts = []
    if not counts:
        raise UsageError(
            f"cannot read the step count {original!r}", fix='use 250, "250", "ddim50" or "10,15,20"'
        )
    return counts


def _constant_stride(num_timesteps: int, count: int) -> list[int]:
    for stride in range(1, num_timesteps + 1):
        if len(range(0, num_timesteps, stride)) == count:
            return list(range(0, num_timesteps, stride))
    raise UsageError(
        f"no constant stride over {num_timesteps} timesteps gives exactly {count} steps",
        fix=f'choose a divisor of {num_timesteps}, or the string "{count}" for an uneven stride',
    )


def _spread(length: int, count: int) -> list[int]:
    if not 1 <= count <= length:
        raise UsageError(f"cannot keep {count} of {length} timesteps", fix=f"choose between 1 and {length}")
    stride = 1.0 if count == 1 else (length - 1) / (count - 1)
    offsets, position = [], 0.0
    for _ in range(count):
        # the position is accumulated and halves round to even, as in the released models' own tables
        offsets.append(round(position))
        position += stride
    return offsets
