"""Randomness as a function of position: no global generator is drawn from, so there is no state to save."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def mix_seed(*parts: int | str) -> int:
    """A 63-bit seed from any mixture of numbers and names; the same on every machine and in every process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `mix_seed(*parts)`."""
    return torch.Generator().manual_seed(mix_seed(*parts))


class SampleStreams:
    """One random stream per sample of a batch.

    What is drawn for a sample depends on its own seed only, so a batch may be cut into micro-batches, spread
    over processes or resumed, and every sample still meets the same noise. Numbers are drawn on the CPU and
    moved.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)

    @classmethod
    def from_seeds(cls, *parts: int | str, positions: Sequence[int]) -> SampleStreams:
        """Streams seeded by (parts, position), one for each position."""
        return cls([generator_for(*parts, int(position)) for position in positions])

    def __len__(self) -> int:
        return len(self.generators)

    def __getitem__(self, index: slice) -> SampleStreams:
        return SampleStreams(self.generators[index])

    def randn_like(self, x: Tensor) -> Tensor:
        """Standard normal noise of the shape, dtype and device of x; x: (b, ...)."""
        rows = [torch.randn(x.shape[1:], generator=g, dtype=_draw_dtype(x.dtype)) for g in self.generators]
        return torch.stack(rows).to(device=x.device, dtype=x.dtype)

    def rand(self, device: torch.device | str = "cpu") -> Tensor:
        """Uniform numbers in [0, 1), float32, (b,)."""
        return torch.stack([torch.rand((), generator=g) for g in self.generators]).to(device)

    def rand_rows(self, num: int, device: torch.device | str = "cpu") -> Tensor:
        """Uniform numbers in [0, 1), float32, (b, num)."""
        return torch.stack([torch.rand(num, generator=g) for g in self.generators]).to(device)

    def randint(self, high: int, device: torch.device | str = "cpu") -> Tensor:
        """Uniform integers in [0, high), int64, (b,)."""
        return torch.stack([torch.randint(high, (), generator=g) for g in self.generators]).to(device)


def _draw_dtype(dtype: torch.dtype) -> torch.dtype:
    # half-precision draws differ between devices and lose the tails: draw in float32 and round
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32
