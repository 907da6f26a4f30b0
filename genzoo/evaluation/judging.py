"""What every kind of evaluation shares: how to run, what to note, and what a result must state."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from genzoo.core.errors import DataError
from genzoo.core.processes import World
from genzoo.data.picture_sets import PictureSet, Subset, looked_at
from genzoo.evaluation.counts import duplicate_warning
from genzoo.evaluation.features import FeatureNetwork, build_network
from genzoo.evaluation.intervals.estimate import Uncertainty
from genzoo.evaluation.protocols import Protocol
from genzoo.evaluation.result import EvaluationResult
from genzoo.evaluation.scores import score

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.extraction import Features
    from genzoo.evaluation.reference import Reference

Progress = Callable[[str, int, int], None]
Network: TypeAlias = "str | FeatureNetwork | Callable[[Tensor], Any] | None"


@dataclass(frozen=True)
class Settings:
    """How to run, none of which changes the numbers.

    progress: called with (what, done, total).   world: the processes that share the work; every one of them
    makes the same call, each extracts its part, and all get the result.   intervals: how they are made; None
    for numbers alone, which saves the rows that they need.
    """

    device: str = "cpu"
    batch_size: int = 64
    workers: int = 4
    cache: bool = True
    progress: Progress | None = None
    world: World = field(default_factory=World.single)
    intervals: Uncertainty | None = field(default_factory=Uncertainty)

    def report(self, what: str, total: int) -> Callable[[int], None]:
        """A callback that tells how many of `total` are done."""
        return lambda done: self.progress(what, done, total) if self.progress else None


@dataclass
class Notes:
    """What a result must say beside its numbers."""

    differences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Judging:
    """What `judge` needs beside features: a protocol for what there is, and its networks, ready to run.

    named: the protocol as it is known.   used: for this number.   notes: what has been noticed so far.
    """

    named: Protocol
    used: Protocol
    networks: tuple[FeatureNetwork, ...]
    settings: Settings
    notes: Notes
    started: float

    @property
    def network(self) -> FeatureNetwork:
        """The first, and mostly the only one."""
        return self.networks[0]

    def first(self, pictures: PictureSet, what: str) -> PictureSet:
        """As many as the protocol judges; what this leaves out is noted, and what was left out before."""
        self.note(pictures, "generated")
        if len(pictures) > self.used.num:
            self.notes.warnings.append(
                f"of {len(pictures)} generated {what} the first {self.used.num} were judged"
            )
        return Subset(pictures, range(self.used.num))

    def looked_at(self, pictures: PictureSet, what: str) -> str:
        """The hash of these pictures; how reading changed some of them is noted."""
        digest, changed = looked_at(pictures)
        done = ", ".join(f"{count} {name}" for name, count in sorted(changed.items()))
        if done:
            self.notes.warnings.append(f"{what}: of {len(pictures)} files {done}, as training reads them")
        return digest

    def note(self, pictures: PictureSet, what: str) -> None:
        """Warn of what the reader of these pictures has noticed."""
        self.notes.warnings += [f"{what}: {line}" for line in pictures.notes]


def begin(
    named: Protocol,
    *,
    available: int,
    num: int | None = None,
    networks: Mapping[str, tuple[Network, str | Path | None]],
    settings: Settings | None = None,
) -> Judging:
    """Fit a protocol to `available` generated pictures or clips, and load its networks.

    num: judge so many, in place of the protocol's number.   networks: those that the protocol names, each
    with what stands in its place, if anything, and its weights file. Both are noted when they differ.
    """
    started, settings, notes = time.time(), settings or Settings(), Notes()
    used = adjust(named, num=num, available=available, notes=notes)
    built = tuple(
        build_network(other or name, weights=weights, device=settings.device)
        for name, (other, weights) in networks.items()
    )
    note_network(named, built[0], notes)
    return Judging(named, used, built, settings, notes, started)


def judge(
    generated: Features,
    reference: Reference,
    judging: Judging,
    *,
    more: Mapping[str, float] | None = None,
    comparable: Mapping[str, Any],
    described: Mapping[str, Any],
    reference_name: str | None,
    sampling: Mapping[str, Any] | None,
) -> EvaluationResult:
    """The protocol's metrics of these features, with all that they depend on.

    more: metrics that are not of features.   comparable: what else two results must share.   described: what
    else is said of the generated ones.   sampling: how they were made.
    """
    note_counts(generated, reference, judging.network, judging.notes)
    network, how = judging.network, judging.settings.intervals
    label = network.label if len(judging.networks) == 1 else ""
    estimates = score(judging.used.metrics, generated, reference, label=label, own=network.own, how=how)
    digest = reference.content_hash
    if described.get("sha256") == digest:
        judging.notes.warnings.append("the reference is the very set that is judged")
    return EvaluationResult(
        protocol=judging.named.name,
        metrics={name: one.value for name, one in estimates.items()} | dict(more or {}),
        intervals={name: one.describe() for name, one in estimates.items() if one.method},
        terms={name: one.terms for name, one in estimates.items() if one.terms is not None},
        comparable={**must_match(judging), **comparable, "reference": digest},
        generated={"num": generated.count, **described},
        reference={"name": reference_name, "num": reference.count, "sha256": digest},
        network=_each([network.describe() for network in judging.networks]),
        sampling=dict(sampling or {}),
        differences=judging.notes.differences,
        warnings=judging.notes.warnings,
        choices=list(judging.named.choices),
        environment=environment(judging.settings, generated, time.time() - judging.started),
    )


def adjust(protocol: Protocol, *, num: int | None, available: int, notes: Notes) -> Protocol:
    """The protocol for `num` images, differences noted. Raises DataError when there are too few images."""
    wanted = protocol.num if num is None else num
    if available < 2:
        raise DataError(
            f"{protocol.name} needs {wanted} images, and at least 2 for any number; there is {available}",
            fix="make more",
        )
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
    for what, rows in (("generated", generated.rows.get("pool")), ("reference", reference.rows.get("pool"))):
        notes.warnings += [] if rows is None else duplicate_warning(what, rows)
    for what, constant, count in (
        ("generated", generated.constant, generated.count),
        ("reference", reference.constant, reference.count),
    ):
        if constant:
            notes.warnings.append(f"{constant} of {count} {what} images are of one colour")


def size_of(pictures: PictureSet) -> str:
    """Height x width of the first picture; of a clip, frames before them."""
    return " x ".join(map(str, pictures.read(0).shape[:-1]))


def name_of(source: Any) -> str | None:
    """A name for a table: the last part of a path."""
    return Path(source).name if isinstance(source, str | Path) else None


def must_match(judging: Judging) -> dict[str, Any]:
    """What two results must share in protocol and feature networks to be compared."""
    return {
        "protocol": judging.used.name,
        "definition": judging.used.fingerprint(),
        "network": _each([network.name for network in judging.networks]),
        "network file": _each([network.weights_sha256 for network in judging.networks]),
        "preprocessing": _each([network.preprocessing for network in judging.networks]),
    }


def _each(values: list[Any]) -> Any:
    """Of one network the value itself."""
    return values[0] if len(values) == 1 else values


def environment(settings: Settings, features: Features, seconds: float) -> dict[str, Any]:
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
        "stages": {name: round(value, 3) for name, value in features.seconds.items()},
    }
