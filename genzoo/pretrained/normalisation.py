"""How latents come to mean zero and variance one: an offset and a scale, for all channels or for each.

    KL                 (z - shift) factor                    AutoencoderKL, SD3, FLUX.1
    per channel        (z - mean) / std x multiplier         Wan, Qwen-Image, one's own statistics
    SDXL with both     (z - mean) factor / std
    RAE                (z - mean) / (std + 1e-5)
    FLUX.2             packed 2 x 2, (z - mean) / sqrt(variance + 1e-4)

All are (z - offset) scale, and z / scale + offset on the way back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from genzoo.core.errors import DataError, UsageError, WeightsError
from genzoo.core.reading import read_json

STD_FLOOR = 1e-6
MEASURE = "genzoo prepare latent-statistics RECIPE --output FILE"


@dataclass(frozen=True)
class Normalisation:
    """offset, scale: numbers, or (c,) float64 on the CPU for channels at the third axis from behind."""

    offset: float | Tensor = 0.0
    scale: float | Tensor = 1.0

    def apply(self, z: Tensor) -> Tensor:
        """Latents of the autoencoder to those of a model; the dtype stays."""
        return (z - _at_channels(self.offset, z)) * _at_channels(self.scale, z)

    def undo(self, z: Tensor) -> Tensor:
        """Latents of a model to those of the autoencoder."""
        return z / _at_channels(self.scale, z) + _at_channels(self.offset, z)

    @property
    def digest(self) -> str:
        """A short hash of both."""
        listed = [x.tolist() if isinstance(x, Tensor) else x for x in (self.offset, self.scale)]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _at_channels(value: float | Tensor, z: Tensor) -> float | Tensor:
    return value if not isinstance(value, Tensor) else value.to(z)[:, None, None]


def per_channel(
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    *,
    multiplier: float = 1.0,
    eps: float = 0.0,
) -> Normalisation:
    """(z - mean) / (std + eps) x multiplier. Raises DataError for a channel that does not vary."""
    mean, std = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, std))
    dead = (std < STD_FLOOR).nonzero()[:, 0].tolist()
    if dead:
        raise DataError(
            f"channel {dead[0]} of the latents does not vary",
            why=f"its deviation is {float(std[dead[0]]):.3g}",
            fix="measure on other pictures, or use another autoencoder",
        )
    return Normalisation(mean, multiplier / (std + eps))


def of_batch_norm(mean: Tensor, variance: Tensor, eps: float) -> Normalisation:
    """That of a batch norm's running statistics, (c,)."""
    return Normalisation(mean.detach().cpu().double(), 1 / (variance.detach().cpu().double() + eps).sqrt())


def pack(latents: Tensor) -> Tensor:
    """Squares of 2 x 2 to channels: channel 4 c + 2 a + b holds latents[c, a::2, b::2] (FLUX.2)."""
    return rearrange(latents, "... c (h a) (w b) -> ... (c a b) h w", a=2, b=2)


def unpack(packed: Tensor) -> Tensor:
    """Undo `pack`."""
    return rearrange(packed, "... (c a b) h w -> ... c (h a) (w b)", a=2, b=2)


def measured(
    statistics: str | Path | Mapping[str, Any], *, codec: str, channels: int, multiplier: float = 1.0
) -> Normalisation:
    """That of a statistics file, or of its content, for a codec by its fingerprint.

    Raises WeightsError for statistics of another codec, UsageError for what are none.
    """
    where = None if isinstance(statistics, Mapping) else str(statistics)
    told = statistics if isinstance(statistics, Mapping) else read_json(Path(statistics), "statistics")
    if not isinstance(told, Mapping) or not {"codec", "mean", "std"} <= set(told):
        raise UsageError("these are no statistics of latents", where=where, fix=f"measure them: {MEASURE}")
    if told["codec"] != codec:
        raise WeightsError(
            f"{where or 'the statistics'} was measured with {told['codec']}, this run encodes with {codec}",
            where="codec.statistics",
            fix=f"measure again: {MEASURE}",
        )
    mean, std = told["mean"], told["std"]
    if not (len(mean) == len(std) == channels):
        raise UsageError(
            f"the statistics have {len(mean)} channels, the latents {channels}", where=where, fix=MEASURE
        )
    return per_channel(mean, std, multiplier=multiplier)
