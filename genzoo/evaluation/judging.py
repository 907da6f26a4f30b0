"""What every kind of evaluation shares: how to run, what to note, and what a result must state."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.features import FeatureNetwork, build_network
from genzoo.evaluation.protocols import Protocol, load_protocol
from genzoo.evaluation.result import EvaluationResult
from genzoo.evaluation.scores import score

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.extraction import Features
    from genzoo.evaluation.reference import Reference

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How to run, none of which changes the numbers.   progress: called with (what, done, total)."""

    device: str = "cpu"
    batch_size: int = 64
    workers: int = 4
    cache: bool = True
    progress: Progress | None = None

    def report(self, what: str, total: int) -> Callable[[int], None]:
        """A callback that tells how many of `total` are done."""
        return lambda done: self.progress(what, done, total) if self.progress else None


@dataclass
class Notes:
    """What a result must say beside its numbers."""

    differences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Judging:
    """One evaluation by one network, from its protocol to its result; images and clips go the same way.

    kinds: of protocols that `judge` (a name for messages) can follow.   available: generated images or clips.
    num, network, weights: in place of the protocol's, noted when they differ.
    """

    def __init__(
        self, protocol: str | Protocol, *, kinds: tuple[str, ...], judge: str, settings: Settings | None
    ) -> None:
        self.started, self.settings, self.notes = time.time(), settings or Settings(), Notes()
        self.named = load_protocol(protocol)
        if self.named.kind not in kinds:
            raise UsageError(f"{self.named.name} judges {self.named.kind}; {judge}() judges {kinds[0]}")

    def choose(
        self,
        *,
        num: int | None,
        available: int,
        network: str | FeatureNetwork | Callable[[Tensor], Any] | None,
        weights: str | Path | None,
    ) -> tuple[Protocol, FeatureNetwork]:
        """The protocol for this number, and the network, ready to run."""
        self.used = adjust(self.named, num=num, available=available, notes=self.notes)
        self.network = build_network(
            network or self.used.network, weights=weights, device=self.settings.device
        )
        note_network(self.named, self.network, self.notes)
        return self.used, self.network

    def score(self, generated: Features, reference: Reference) -> dict[str, float]:
        """The protocol's metrics; what the counts cannot carry is noted."""
        note_counts(generated, reference, self.network, self.notes)
        return score(self.used.metrics, generated, reference, label=self.network.label)

    def result(
        self,
        metrics: Mapping[str, float],
        generated: Features,
        reference: Reference,
        *,
        comparable: Mapping[str, Any],
        described: Mapping[str, Any],
        reference_name: str | None,
        sampling: Mapping[str, Any] | None,
    ) -> EvaluationResult:
        """All of it, with what it depends on.

        comparable: what else two results must share.   described: what else is said of the generated ones.
        """
        name, digest = reference_name, reference.content_hash
        return EvaluationResult(
            protocol=self.named.name,
            metrics=metrics,
            comparable={**must_match(self.used, self.network), **comparable, "reference": digest},
            generated={"num": generated.count, **described},
            reference={"name": name, "num": reference.count, "sha256": digest},
            network=self.network.describe(),
            sampling=dict(sampling or {}),
            differences=self.notes.differences,
            warnings=self.notes.warnings,
            choices=list(self.named.choices),
            environment=environment(self.settings, generated, time.time() - self.started),
        )


def adjust(protocol: Protocol, *, num: int | None, available: int, notes: Notes) -> Protocol:
    """The protocol for `num` images, differences noted. Raises DataError when there are too few images."""
    wanted = protocol.num if num is None else num
    if available < wanted:
        raise DataError(
            f"{protocol.name} needs {wanted} images, there are {available}",
            fix=f"make more, or --num {available}: the result then says so and compares only with its like",
        )
    if wanted == protocol.num:
        return protocol
    if wanted < 2:
        raise DataError(f"statistics need at least 2 images, got --num {wanted}")
    notes.differences.append(f"{wanted} images instead of {protocol.num}")
    metrics = {name: dict(options) for name, options in protocol.metrics.items()}
    if metrics.get("kid", {}).get("subset_size", 0) > wanted:
        notes.differences.append(f"KID subsets of {wanted} instead of {metrics['kid']['subset_size']}")
        metrics["kid"]["subset_size"] = wanted
    return protocol.changed(num=wanted, metrics=metrics)


def note_network(protocol: Protocol, network: FeatureNetwork, notes: Notes) -> None:
    """Note a feature network, or a weights file, that is not the protocol's."""
    if network.name != protocol.network:
        notes.differences.append(f"feature network {network.name} instead of {protocol.network}")
    elif not (network.weights_sha256 or "").startswith(protocol.weights_sha256):
        own = (network.weights_sha256 or "")[:8]
        notes.differences.append(f"weights file {own}... instead of {protocol.weights_sha256[:8]}...")


def note_counts(generated: Features, reference: Reference, network: FeatureNetwork, notes: Notes) -> None:
    """Warn of statistics that the counts cannot carry, and of constant images."""
    for name, part in generated.statistics.items():
        width = len(reference.gaussians[name].mean) if name in reference.gaussians else 0
        smallest = min(part.count, reference.count or part.count)
        if smallest <= width:
            notes.warnings.append(
                f"{smallest} images for {width} dimensions of {network.name}/{name}: the covariance is "
                "rank-deficient and the distance biased upwards; prefer KID"
            )
    for what, constant, count in (
        ("generated", generated.constant, generated.count),
        ("reference", reference.constant, reference.count),
    ):
        if constant:
            notes.warnings.append(f"{constant} of {count} {what} images are of one colour")


def name_of(source: Any) -> str | None:
    """A name for a table: the last part of a path."""
    return Path(source).name if isinstance(source, str | Path) else None


def must_match(protocol: Protocol, network: FeatureNetwork) -> dict[str, Any]:
    """What two results must share in protocol and feature network to be compared."""
    return {
        "protocol": protocol.name,
        "definition": protocol.fingerprint(),
        "network": network.name,
        "network file": network.weights_sha256,
        "preprocessing": network.preprocessing,
    }


def environment(settings: Settings, features: Features | None, seconds: float) -> dict[str, Any]:
    """Versions, device and where the time went."""
    import genzoo

    return {
        "genzoo": genzoo.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name()
        if settings.device.startswith("cuda")
        else platform.processor() or "cpu",
        "seconds": round(seconds, 3),
        "stages": {name: round(value, 3) for name, value in features.seconds.items()} if features else {},
    }
