"""Token routing in training (TREAD, 2025): some tokens pass by the middle blocks, and come back unchanged.

The kept tokens stay in the order of their places, which a scan needs and attention does not mind. For a
Mamba block the neighbours in its sequence are then farther apart in the picture than they are in sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Route:
    """kept: (b, k), ascending places of the tokens that blocks start..end, both included, see."""

    kept: Tensor
    start: int
    end: int


def num_kept(num_tokens: int, rate: float) -> int:
    """How many of a sample's tokens stay when the share `rate` passes by."""
    return num_tokens - int(num_tokens * rate)


def kept_places(noise: Tensor, rate: float) -> Tensor:
    """Ascending places of the tokens with the least noise.   noise: (b, n).   Returns (b, k) int64."""
    return noise.argsort(dim=1)[:, : num_kept(noise.shape[1], rate)].sort(dim=1).values


def gathered(tokens: Tensor, kept: Tensor, *, num_front: int = 0) -> Tensor:
    """The kept tokens, behind those in front that no route takes.   tokens: (b, f + n, d).   kept: (b, k)."""
    places = _places(tokens, kept, num_front)
    return torch.cat([tokens[:, :num_front], tokens.gather(1, places)], dim=1)


def scattered(tokens: Tensor, kept: Tensor, routed: Tensor, *, num_front: int = 0) -> Tensor:
    """The tokens with routed ones in the places they came from.   routed: (b, f + k, d).   A new tensor."""
    front, rest = routed[:, :num_front], routed[:, num_front:]
    whole = torch.cat([front.to(tokens.dtype), tokens[:, num_front:]], dim=1)
    return whole.scatter(1, _places(tokens, kept, num_front), rest.to(tokens.dtype))


def _places(tokens: Tensor, kept: Tensor, num_front: int) -> Tensor:
    return (kept + num_front)[..., None].expand(-1, -1, tokens.shape[2])
