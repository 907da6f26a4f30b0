"""Evaluate: samples and a reference in, one result out, by a named protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import UsageError
from genzoo.data.picture_sets import PictureSet, content_hash, open_pictures
from genzoo.evaluation.counts import require_enough
from genzoo.evaluation.edges import control_adherence
from genzoo.evaluation.judging import Network, Settings, begin, judge, name_of, size_of
from genzoo.evaluation.measuring import features_of, open_reference, reference_of
from genzoo.evaluation.protocols import Protocol, load_protocol
from genzoo.evaluation.result import EvaluationResult

if TYPE_CHECKING:
    from genzoo.data.picture_sets import PictureSource as Source

__all__ = ["Settings", "evaluate"]


def evaluate(
    source: Source,
    *,
    protocol: str | Protocol,
    reference: Source,
    num: int | None = None,
    network: Network = None,
    weights: str | Path | None = None,
    sampling: Mapping[str, Any] | None = None,
    reference_name: str | None = None,
    controls: Source | None = None,
    settings: Settings | None = None,
) -> EvaluationResult:
    """Judge images by a protocol of kind `images` or `controls`.

    source, reference: folder, npz, npy, uint8 array (n, h, w, c), tensor (n, c, h, w) in [-1, 1], PictureSet;
    the reference may be an ADM npz of statistics. num: judge this many instead of the protocol's number; the
    result then states it and compares only with its like. network, weights: another network, stated likewise.
    """
    named = load_protocol(protocol, kinds=("images", "controls"), judge="evaluate")
    maps = control_maps(named, controls)
    opened, other = open_pictures(source), open_reference(reference)
    networks = {named.network: (network, weights)}
    judging = begin(named, available=len(opened), num=num, networks=networks, settings=settings)
    if not isinstance(other, Path):
        require_enough(judging.used, judging.used.num, len(other))
    pictures = judging.first(opened, "images")
    generated = features_of(pictures, judging, "generated")
    digest = judging.looked_at(pictures, "generated")
    real = reference_of(other, judging)
    more = {} if maps is None else control_adherence(pictures, maps, **named.metrics["control_adherence"])
    comparable = {"generated images": generated.count, "image size": size_of(pictures)}
    return judge(
        generated,
        real,
        judging,
        more=more,
        comparable=comparable if maps is None else comparable | {"controls": content_hash(maps)},
        described={"size": size_of(pictures), "sha256": digest},
        reference_name=reference_name or name_of(reference),
        sampling=sampling,
    )


def control_maps(protocol: Protocol, controls: Source | None) -> PictureSet | None:
    """The maps that a protocol judges against. Raises UsageError where they do not fit it."""
    if ("control_adherence" in protocol.metrics) != (controls is not None):
        needs = "needs the control maps" if controls is None else "has no use for control maps"
        raise UsageError(
            f"{protocol.name} {needs}", fix="--controls FOLDER: one map for each image, in order"
        )
    return None if controls is None else open_pictures(controls)
