"""Feature networks: from uint8 images to features, by name, from a local file, or any callable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import RegistryError, ShapeError, UsageError
from genzoo.core.registry import FEATURES

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class FeatureNetwork:
    """A network, what it was loaded from, and how images reach it.

    extract: uint8 (b, 3, h, w), or what `prepare` stacks to, or clips (b, 3, f, h, w) -> features by output:
    "pool" (b, d), and where the network has them "spatial" (b, d) and "logits" (b, classes).
    prepare: one PIL image -> tensor, run while loading; None means the image as uint8, all of one size.
    label: put before a metric's name; empty only for the networks that published numbers come from.
    own: metrics that were published with this network, whose names stay without the label.
    """

    name: str
    extract: Callable[[Tensor], Mapping[str, Tensor]]
    outputs: tuple[str, ...]
    preprocessing: str
    label: str
    prepare: Callable[[Image], Tensor] | None = None
    weights_file: str | None = None
    weights_sha256: str | None = None
    is_video: bool = False
    own: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)  # such as CLIP's text encoder

    def describe(self) -> dict[str, Any]:
        """What a result states about the network."""
        return {
            "name": self.name,
            "file": self.weights_file,
            "sha256": self.weights_sha256,
            "preprocessing": self.preprocessing,
        }


def build_network(
    network: str | FeatureNetwork | Callable[[Tensor], Any],
    *,
    weights: str | Path | None = None,
    device: str = "cpu",
) -> FeatureNetwork:
    """A network by registered name, by `timm:NAME`, `torchvision:NAME` or `open_clip:NAME`, or any callable.

    Raises RegistryError for an unknown name and WeightsError when its weights are not on this machine.
    """
    if isinstance(network, FeatureNetwork):
        return network
    if callable(network):
        return from_callable(network, device=device)
    library, colon, model = network.partition(":")
    if colon and library + colon in FEATURES:
        if not model or weights is None:
            raise UsageError(
                f"{network}: give a model's name after the colon and its file with --weights PATH"
            )
        return FEATURES.get(library + colon)(weights=weights, device=device, model=model)
    if network.endswith(":"):
        raise RegistryError(f"{network} needs a model's name after the colon")
    return FEATURES.get(network)(weights=weights, device=device)


def from_callable(
    function: Callable[[Tensor], Any],
    *,
    name: str | None = None,
    device: str = "cpu",
    sha256: str | None = None,
    is_video: bool = False,
) -> FeatureNetwork:
    """Wrap any callable uint8 (b, 3, h, w) -> (b, d), or -> {"pool": ..., "logits": ...}.

    Results made with it compare only with results of the same name and hash, so give both.
    """
    label = name or str(getattr(function, "__name__", type(function).__name__))

    def extract(images: Tensor) -> Mapping[str, Tensor]:
        features = function(images.to(device))
        features = features if isinstance(features, Mapping) else {"pool": features}
        if features["pool"].dim() != 2:
            raise ShapeError(f"{label} must return (images, dimensions), got {tuple(features['pool'].shape)}")
        return features

    outputs = ("pool", "logits")
    return FeatureNetwork(
        label, extract, outputs, "as the callable does", label, None, None, sha256, is_video
    )
