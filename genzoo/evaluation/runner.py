"""Evaluate: samples and a reference in, one result out, by a named protocol."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.edges import control_adherence
from genzoo.evaluation.extraction import Features, extract, gather_features, shard
from genzoo.evaluation.features import FeatureNetwork, build_network
from genzoo.evaluation.images import FirstImages, ImageSet, batches, open_images
from genzoo.evaluation.protocols import Protocol, load_protocol
from genzoo.evaluation.reference import Reference, cached_reference, is_adm_reference, read_adm_reference
from genzoo.evaluation.result import EvaluationResult
from genzoo.evaluation.scores import outputs_needed, score
from genzoo.evaluation.weights import file_sha256

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Source = str | Path | np.ndarray[Any, Any] | Tensor | ImageSet

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


def evaluate(
    source: Source,
    *,
    protocol: str | Protocol,
    reference: Source,
    num: int | None = None,
    network: str | FeatureNetwork | Callable[[Tensor], Any] | None = None,
    weights: str | Path | None = None,
    sampling: Mapping[str, Any] | None = None,
    reference_name: str | None = None,
    controls: Source | None = None,
    settings: Settings | None = None,
) -> EvaluationResult:
    """Judge images by a protocol of kind `images` or `controls`.

    source, reference: folder, npz, npy, uint8 array (n, h, w, c), tensor (n, c, h, w) in [-1, 1], ImageSet;
    the reference may be an ADM npz of statistics. num: judge this many instead of the protocol's number; the
    result then states it and compares only with its like. network, weights: another network, stated likewise.
    In torch.distributed every process calls this; each extracts its part, all get the result.
    """
    started, settings, notes = time.time(), settings or Settings(), Notes()
    named = load_protocol(protocol)
    if named.kind not in ("images", "controls"):
        raise UsageError(f"{named.name} judges {named.kind}; evaluate() judges images")
    maps = _control_maps(named, controls)
    images = open_images(source)
    used = adjust(named, num=num, available=len(images), notes=notes)
    built = build_network(network or used.network, weights=weights, device=settings.device)
    note_network(named, built, notes)
    if len(images) > used.num:
        images = FirstImages(images, used.num)
    generated = features_of(images, built, outputs_needed(used.metrics), settings, what="generated")
    real = reference_of(reference, built, used, settings)
    metrics = score(used.metrics, generated, real, label=built.label)
    if maps is not None:
        metrics |= control_adherence(images, maps, **used.metrics["control_adherence"])
    note_counts(generated, real, built, notes)
    return EvaluationResult(
        protocol=named.name,
        metrics=metrics,
        comparable={
            "protocol": used.name,
            "definition": used.fingerprint(),
            "network": built.name,
            "network file": built.weights_sha256,
            "preprocessing": built.preprocessing,
            "generated images": generated.count,
            "image size": size_of(images),
            "reference": real.content_hash,
            **({} if maps is None else {"controls": maps.content_hash()}),
        },
        generated={"num": generated.count, "size": size_of(images), "sha256": images.content_hash()},
        reference={
            "name": reference_name or name_of(reference),
            "num": real.count,
            "sha256": real.content_hash,
        },
        network=built.describe(),
        sampling=dict(sampling or {}),
        differences=notes.differences,
        warnings=notes.warnings,
        choices=list(named.choices),
        environment=environment(settings, generated, time.time() - started),
    )


def _control_maps(protocol: Protocol, controls: Source | None) -> ImageSet | None:
    if ("control_adherence" in protocol.metrics) != (controls is not None):
        needs = "needs the control maps" if controls is None else "has no use for control maps"
        raise UsageError(
            f"{protocol.name} {needs}", fix="--controls FOLDER: one map for each image, in order"
        )
    return None if controls is None else open_images(controls)


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


def features_of(
    images: ImageSet,
    network: FeatureNetwork,
    outputs: tuple[set[str], set[str]],
    settings: Settings,
    *,
    what: str,
    keep: int | None = None,
) -> Features:
    """This set's features, joined over processes.

    outputs: those whose statistics, and those whose rows are needed.   keep: rows of this many images only.
    """
    statistics, rows = outputs
    data = batches(
        images,
        batch_size=settings.batch_size,
        indices=shard(len(images)),
        prepare=network.prepare,
        workers=settings.workers,
    )
    on_batch = settings.report(what, len(images))
    found = extract(data, network, statistics=statistics, rows=rows, keep=keep, on_batch=on_batch)
    return gather_features(found)


def reference_of(
    source: Source, network: FeatureNetwork, protocol: Protocol, settings: Settings
) -> Reference:
    """The reference's statistics and rows: read from an ADM file, from the cache, or extracted."""
    if isinstance(source, str | Path) and is_adm_reference(source):
        return _adm_reference(Path(source), network, protocol, settings)
    images = open_images(source)
    statistics, rows = outputs_needed(protocol.metrics)
    rows -= {"logits"}  # only the generated images have an Inception Score
    balls = protocol.metrics.get("precision_recall", {})
    keep = None if "kid" in protocol.metrics else balls.get("reference_num")
    ddof = protocol.metrics.get("fvd", {}).get("ddof", 1)
    key = {
        "content": images.content_hash(),
        **network.describe(),
        "outputs": [sorted(statistics), sorted(rows)],
        "ddof": ddof,
        "rows kept": keep,
        "format": 1,
    }

    def make() -> Reference:
        found = features_of(images, network, (statistics, rows), settings, what="reference", keep=keep)
        gaussians = {name: part.gaussian(ddof=ddof) for name, part in found.statistics.items()}
        return Reference(images.content_hash(), gaussians, found.rows, found.count, found.constant)

    # a callable without a hash may have changed since: only what has one is remembered
    known = network.weights_sha256 is not None or network.name in ("pixels", "video-pixels")
    return cached_reference(key, make) if settings.cache and known else make()


def _adm_reference(path: Path, network: FeatureNetwork, protocol: Protocol, settings: Settings) -> Reference:
    if network.name != "inception-2015":
        raise UsageError(
            f"{path.name} holds statistics of the 2015 Inception network, not of {network.name}",
            fix="give a folder of reference images, or use that network",
        )
    gaussians, images = read_adm_reference(path)
    _, rows = outputs_needed(protocol.metrics)
    rows -= {"logits"}  # only the generated images have an Inception Score
    digest, kept = file_sha256(path), {}
    if rows and images is not None:
        key = {"content": digest, **network.describe(), "rows": sorted(rows), "format": 1}

        def make() -> Reference:
            found = features_of(images, network, (set(), rows), settings, what="reference")
            return Reference(digest, {}, found.rows, found.count, found.constant)

        kept = dict((cached_reference(key, make) if settings.cache else make()).rows)
    return Reference(digest, gaussians, kept, None)


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


def size_of(images: ImageSet) -> str:
    """Height x width of the first image."""
    height, width = images.read(0).shape[:2]
    return f"{height} x {width}"


def name_of(source: Any) -> str | None:
    """A name for a table: the last part of a path."""
    return Path(source).name if isinstance(source, str | Path) else None


def environment(settings: Settings, features: Features | None, seconds: float) -> dict[str, Any]:
    """Versions, device and where the time went."""
    import genzoo

    return {
        "genzoo": getattr(genzoo, "__version__", None),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name()
        if settings.device.startswith("cuda")
        else platform.processor() or "cpu",
        "seconds": round(seconds, 3),
        "stages": {name: round(value, 3) for name, value in features.seconds.items()} if features else {},
    }
