"""What a LoRA file does to a base: for each linear module a change of its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """up (out, r), down (r, in): the change is up @ down.   Or dense (out, in), where it is no such product
    of few numbers, as in LoHa and LoKr.
    """

    up: Tensor | None = None
    down: Tensor | None = None
    dense: Tensor | None = None

    @property
    def delta(self) -> Tensor:
        """(out, in), in float64."""
        if self.dense is not None:
            return self.dense.double()
        assert self.up is not None
        assert self.down is not None
        return self.up.double() @ self.down.double()

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        if self.dense is not None:
            return (self.dense.shape[0], self.dense.shape[1])
        assert self.up is not None
        assert self.down is not None
        return (self.up.shape[0], self.down.shape[1])

    @property
    def rank(self) -> int:
        """Of the factors; of a dense change what it can be at most."""
        return min(self.shape) if self.down is None else self.down.shape[0]

    @property
    def is_finite(self) -> bool:
        """Whether no entry is NaN or infinite."""
        held = (part for part in (self.up, self.down, self.dense) if part is not None)
        return all(bool(torch.isfinite(part).all()) for part in held)

    def scaled(self, strength: float) -> Change:
        """The change times a number."""
        if self.dense is not None:
            return Change(dense=self.dense * strength)
        assert self.up is not None
        return Change(self.up * strength, self.down)


@dataclass(frozen=True)
class LoraFile:
    """changes: by the module's name: of the UNet or transformer bare, of text encoders behind `text_encoder.`
    and `text_encoder_2.`, without `text_model.`.   layout: how it was written.   trigger: words, if it says.
    """

    changes: Mapping[str, Change]
    layout: str
    path: Path | None = None
    trigger: str | None = None


def combined(up: Tensor, down: Tensor) -> Change:
    """Factors as they are stored: float32."""
    return Change(up.to(torch.float32).contiguous(), down.to(torch.float32).contiguous())
