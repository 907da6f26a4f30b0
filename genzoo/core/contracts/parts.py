"""What only some of the parts around a model can do: codecs, extractors, samplers, metrics, layouts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from genzoo.core.node import Node


class SavesItself(Protocol):
    """A codec can go along with a run to another machine."""

    def save(self, folder: Path) -> dict[str, str | None]:
        """Write its weights into an empty folder.

        The arguments that build it from there: names in the folder, None for those that are left out.
        """


class ScalesLatents(Protocol):
    """scaling_factor: what a codec multiplies its latents by, so that their variance is about one."""

    scaling_factor: float


class NormalisesLatents(Protocol):
    """A codec whose latents are (z - offset) scale of the autoencoder's.

    normalisation: has `apply(z)`, `undo(z)` and a `digest`.   measured_by: None for the autoencoder's own
    normalisation.
    """

    normalisation: Any
    measured_by: str | None


class Reconstructs(Protocol):
    """An autoencoder that can be judged by what it gives back."""

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """(b, c, h, w) in [-1, 1] -> the same, through tokens, or through the latents' mean."""


class MeasuresLatents(Protocol):
    """An autoencoder whose latents are continuous."""

    def latent_deviation(self, pixels: Tensor) -> float:
        """The standard deviation of the latents of these pictures."""


class HasFingerprint(Protocol):
    """fingerprint: of an extractor that is more than a plain function."""

    fingerprint: str


class SaysSettings(Protocol):
    """described: name and settings of an extractor, for people; `build_control` sets it."""

    described: str


class MovesTo(Protocol):
    """An extractor with weights."""

    def to(self, device: torch.device | str) -> Any:
        """Move them."""


class ChecksFlow(Protocol):
    """A sampler that can say before anything is trained whether its settings fit a flow."""

    def check_flow(self, flow: Any, options: Mapping[str, Any]) -> None:
        """Raise UsageError for options of a section that this flow cannot be sampled with."""


class NeedsClasses(Protocol):
    """Of a metric. needs_classes: it asks for samples by class, so that data without classes say nothing."""

    needs_classes: bool


class ChecksTask(Protocol):
    """A layout whose weights mean something under certain tasks only."""

    def check_task(self, task: Node) -> None:
        """Raise UsageError when a recipe's task reads such weights otherwise."""
