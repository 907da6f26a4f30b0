"""Evaluate: samples and a reference in, one result out, by a named protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import UsageError
from genzoo.evaluation.edges import control_adherence
from genzoo.evaluation.extraction import Features, evenly, extract, gather_features, shard
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.image_sources import FirstImages, ImageSet, batches, open_images
from genzoo.evaluation.judging import Judging, Settings, name_of
from genzoo.evaluation.protocols import Protocol
from genzoo.evaluation.reference import Reference, cached_reference, is_adm_reference, read_adm_reference
from genzoo.evaluation.result import EvaluationResult
from genzoo.evaluation.scores import outputs_needed
from genzoo.pretrained.known_weights import file_sha256

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Source = str | Path | np.ndarray[Any, Any] | Tensor | ImageSet

__all__ = ["Settings", "evaluate"]


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
    judging = Judging(protocol, kinds=("images", "controls"), judge="evaluate", settings=settings)
    settings = judging.settings
    maps = _control_maps(judging.named, controls)
    images = open_images(source)
    used, built = judging.choose(num=num, available=len(images), network=network, weights=weights)
    if len(images) > used.num:
        judging.notes.warnings.append(f"of {len(images)} generated images the first {used.num} were judged")
        images = FirstImages(images, used.num)
    generated = features_of(images, built, outputs_needed(used.metrics), settings, what="generated")
    real = reference_of(reference, built, used, settings)
    metrics = judging.score(generated, real)
    if maps is not None:
        metrics |= control_adherence(images, maps, **used.metrics["control_adherence"])
    size = size_of(images)
    return judging.result(
        metrics,
        generated,
        real,
        comparable={
            "generated images": generated.count,
            "image size": size,
            **({} if maps is None else {"controls": maps.content_hash()}),
        },
        described={"size": size, "sha256": images.content_hash()},
        reference_name=reference_name or name_of(reference),
        sampling=sampling,
    )


def _control_maps(protocol: Protocol, controls: Source | None) -> ImageSet | None:
    if ("control_adherence" in protocol.metrics) != (controls is not None):
        needs = "needs the control maps" if controls is None else "has no use for control maps"
        raise UsageError(
            f"{protocol.name} {needs}", fix="--controls FOLDER: one map for each image, in order"
        )
    return None if controls is None else open_images(controls)


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

    outputs: those whose statistics, and those whose rows are needed.   keep: rows of this many images only,
    taken at even steps, because a folder is often sorted by class.
    """
    statistics, rows = outputs
    part = shard(len(images))
    wanted = None if keep is None else set(evenly(len(images), keep))
    kept = None if wanted is None else [index in wanted for index in part]
    data = batches(
        images,
        batch_size=settings.batch_size,
        indices=part,
        prepare=network.prepare,
        workers=settings.workers,
    )
    on_batch = settings.report(what, len(images))
    found = extract(data, network, statistics=statistics, rows=rows, keep=kept, on_batch=on_batch)
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


def size_of(images: ImageSet) -> str:
    """Height x width of the first image."""
    height, width = images.read(0).shape[:2]
    return f"{height} x {width}"
