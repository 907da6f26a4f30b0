"""At which times a flow trains: densities over [0, 1], and shifts towards noise for larger pictures.

t counts from noise (0) to data (1). A shift by a acts on the noise share u = 1 - t,
u' = a u / (1 + (a - 1) u) (Esser et al. 2024, Eq. 23); it moves the logit of u by log a, so that a shifted
logit-normal is another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams

Shape = Literal["uniform", "logit_normal", "mode"]


@dataclass(frozen=True)
class Times:
    """A density of training times; as a recipe's section `{name: logit_normal, mean: 0.0, std: 1.0}`.

    mean, std: of the logit of t for "logit_normal"; a mean below 0 trains more on noise.   mode_scale: how
    far "mode" bends the uniform density (Esser et al. 2024, Eq. 20).   shift: a above 1 moves the times
    towards noise; "by_resolution" takes sqrt(tokens / base_tokens), "dynamic" FLUX's exp of a line through
    (base_tokens, 0.5) and (max_tokens, 1.15).   Tokens are counted after patching.
    """

    name: Shape = "uniform"
    mean: float = 0.0
    std: float = 1.0
    mode_scale: float = 1.29
    shift: float | Literal["by_resolution", "dynamic"] = 1.0
    base_tokens: int | None = None
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.name not in ("uniform", "logit_normal", "mode"):
            raise UsageError(
                f"there are no times {self.name!r}", where="task.times", fix="uniform, logit_normal or mode"
            )
        if not self.std > 0:
            raise UsageError(f"std is {self.std}; a logit-normal needs one above 0", where="task.times")
        if isinstance(self.shift, str):
            self._check_named_shift()
        elif not self.shift > 0:
            raise UsageError(
                f"shift is {self.shift}", where="task.times", fix="use one above 0; 1 shifts nothing"
            )

    def _check_named_shift(self) -> None:
        if self.shift not in ("by_resolution", "dynamic"):
            raise UsageError(
                f"shift is {self.shift!r}", where="task.times", fix="use a number, by_resolution or dynamic"
            )
        if self.base_tokens is None or self.base_tokens < 1:
            raise UsageError(
                f"shift {self.shift} compares tokens with base_tokens, which is {self.base_tokens}",
                where="task.times",
                fix="add base_tokens: the number of tokens that needs no shift, such as 256",
            )

    def factor(self, num_tokens: int) -> float:
        """The shift for a model of so many tokens."""
        if self.shift == "by_resolution":
            return math.sqrt(num_tokens / float(self.base_tokens or 1))
        if self.shift == "dynamic":
            return math.exp(dynamic_mu(num_tokens, int(self.base_tokens or 1), self.max_tokens))
        return float(self.shift)

    def draw(self, generator: SampleStreams, num_tokens: int) -> Tensor:
        """One time for each stream, (b,) float64 in [0, 1]; normal or uniform numbers as the shape needs."""
        count = torch.empty(len(generator), dtype=torch.float64)
        raw = generator.randn_like(count) if self.name == "logit_normal" else generator.rand().double()
        return 1 - shifted(1 - self.shaped(raw), self.factor(num_tokens))

    def shaped(self, raw: Tensor) -> Tensor:
        """Times before the shift, from standard normal (logit_normal) or uniform numbers."""
        if self.name == "logit_normal":
            return torch.sigmoid(self.mean + self.std * raw)
        if self.name == "mode":
            return 1 - raw - self.mode_scale * (torch.cos(math.pi / 2 * raw) ** 2 - 1 + raw)
        return raw

    def density(self, t: Tensor, num_tokens: int) -> Tensor:
        """How often a time is trained on, relative to uniform."""
        factor = self.factor(num_tokens)
        u = shifted(1 - t, 1 / factor)  # before the shift
        stretch = factor / (1 + (factor - 1) * u) ** 2
        if self.name == "logit_normal":
            return logit_normal_density(1 - u, self.mean, self.std) / stretch
        return (self._mode_density(1 - u) if self.name == "mode" else torch.ones_like(t)) / stretch

    def _mode_density(self, t: Tensor) -> Tensor:
        """One over the slope of `shaped`, whose inverse is looked up between its values."""
        raw = torch.linspace(0, 1, 100_001, dtype=torch.float64)
        found = np.interp(t.double().numpy(), self.shaped(raw).flip(0).numpy(), raw.flip(0).numpy())
        slope = -1 - self.mode_scale * (1 - math.pi / 2 * torch.sin(math.pi * torch.from_numpy(found)))
        return 1 / slope.abs()


def build_times(section: str | dict[str, Any] | Times | None) -> Times:
    """Times from a name, from a section, or as they are. Raises UsageError for unknown options."""
    if isinstance(section, Times):
        return section
    options = {"name": section or "uniform"} if section is None or isinstance(section, str) else dict(section)
    known = list(Times.__dataclass_fields__)
    unknown = [key for key in options if key not in known]
    if unknown:
        raise UsageError(
            f"times have no option {', '.join(map(repr, unknown))}",
            where="task.times",
            fix=f"they take {', '.join(known)}",
        )
    return Times(**options)


def shifted(u: Tensor, factor: float) -> Tensor:
    """Noise shares u moved towards 1 (factor above 1) or 0."""
    return factor * u / (1 + (factor - 1) * u)


def dynamic_mu(
    num_tokens: float, base_tokens: int, max_tokens: int, *, base: float = 0.5, highest: float = 1.15
) -> float:
    """FLUX's log-shift: linear in the number of tokens, through (base_tokens, base), beyond both ends too."""
    return base + (num_tokens - base_tokens) * (highest - base) / (max_tokens - base_tokens)


def logit_normal_density(t: Tensor, mean: float, std: float) -> Tensor:
    """The density of sigmoid(N(mean, std^2)) at t in (0, 1)."""
    standard = (torch.logit(t) - mean) / std
    return torch.exp(-(standard**2) / 2) / (std * math.sqrt(2 * math.pi) * t * (1 - t))


def num_tokens(latent_shape: tuple[int, ...], patch_size: int) -> int:
    """Of a model's input after patching: those of all frames for a clip (f, c, h, w)."""
    *frames, _, height, width = latent_shape
    return math.prod(frames) * (height // patch_size) * (width // patch_size)
