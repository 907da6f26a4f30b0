"""Judging clips, for FVD above all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genzoo.core.errors import DataError
from genzoo.evaluation.clip_sources import Clips, ClipSet, DatasetClips, Frames, find_videos
from genzoo.evaluation.extraction import Features, extract, gather_features, shard
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.judging import Judging, Notes, Settings, name_of
from genzoo.evaluation.protocols import Protocol
from genzoo.evaluation.reference import Reference
from genzoo.evaluation.result import EvaluationResult
from genzoo.evaluation.scores import outputs_needed

if TYPE_CHECKING:
    from torch import Tensor


def evaluate_clips(
    source: str | Path | Frames,
    *,
    protocol: str | Protocol,
    reference: str | Path | Frames | DatasetClips,
    num: int | None = None,
    network: str | FeatureNetwork | Callable[[Tensor], Any] | None = None,
    weights: str | Path | None = None,
    sampling: Mapping[str, Any] | None = None,
    reference_name: str | None = None,
    settings: Settings | None = None,
) -> EvaluationResult:
    """Judge videos by a protocol of kind `clips`.

    source, reference: a folder of videos or of frame folders, npz, or uint8 (n, frames, h, w, 3); the
    reference may also be the clips of a data set. Generated videos are read at stride 1 from their first
    frame; real ones as the protocol says, or as the data set cuts them, which the result then states.
    """
    judging = Judging(protocol, kinds=("clips",), judge="evaluate_clips", settings=settings)
    cut = judging.named.clips
    generated = ClipSet(find_videos(source), frames=cut["frames"])
    used, built = judging.choose(num=num, available=len(generated), network=network, weights=weights)
    if len(generated) > used.num:
        judging.notes.warnings.append(f"of {len(generated)} generated clips the first {used.num} were judged")
    generated = generated.take(used.num, select="first", seed=cut["seed"])
    shape = generated.read(0).shape
    real = _real_clips(reference, used, shape[0], judging.notes)
    _same_shape(real, shape)
    ddof = used.metrics.get("fvd", {}).get("ddof", 1)
    features = clip_features(generated, built, used, judging.settings, "generated")
    other = clip_features(real, built, used, judging.settings, "reference")
    gaussians = {name: part.gaussian(ddof=ddof) for name, part in other.statistics.items()}
    measured = Reference(real.content_hash(), gaussians, other.rows, other.count, other.constant)
    size = " x ".join(map(str, shape[:3]))
    return judging.result(
        judging.score(features, measured),
        features,
        measured,
        comparable={"generated clips": features.count, "clip size": size},
        described={"sha256": generated.content_hash(), "short videos left out": generated.short},
        reference_name=reference_name or name_of(reference),
        sampling=sampling,
    )


def _real_clips(
    reference: str | Path | Frames | DatasetClips, protocol: Protocol, frames: int, notes: Notes
) -> Clips:
    cut = protocol.clips
    if isinstance(reference, DatasetClips):
        notes.differences.append(f"reference clips {reference.cut}")
        real: Clips = reference
    else:
        seed = cut["seed"] if cut["select"] == "random" else None
        real = ClipSet(find_videos(reference), frames=frames, stride=cut["stride"], seed=seed)
        if real.short:
            notes.warnings.append(
                f"{real.short} reference videos are shorter than {real.window} frames: left out"
            )
    wanted = protocol.reference.get("num") or len(real)
    if len(real) < wanted:
        notes.differences.append(f"{len(real)} reference clips instead of {wanted}")
    return real.take(min(wanted, len(real)), select=cut["select"], seed=cut["seed"])


def _same_shape(real: Clips, shape: tuple[int, ...]) -> None:
    seen = real.read(0).shape
    if seen != shape:
        raise DataError(
            f"generated clips are {' x '.join(map(str, shape[:3]))}, reference clips"
            f" {' x '.join(map(str, seen[:3]))} (frames x height x width)",
            why="their features would differ by more than what is judged",
            fix="bring the reference to the size of the generated clips, and state how",
        )


def clip_features(
    clips: Clips, network: FeatureNetwork, protocol: Protocol, settings: Settings, what: str
) -> Features:
    """This set's features, joined over processes; all clips must have one size."""
    statistics, rows = outputs_needed(protocol.metrics)
    data = _batches(clips, shard(len(clips)), max(1, settings.batch_size // 8))
    found = extract(
        data, network, statistics=statistics, rows=rows, on_batch=settings.report(what, len(clips))
    )
    return gather_features(found)


def _batches(clips: Clips, indices: range, batch_size: int) -> Iterator[tuple[Tensor, list[int]]]:
    size: tuple[int, ...] | None = None
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        arrays = [clips.read(index) for index in part]
        for array in arrays:
            size = size or array.shape
            if array.shape != size:
                raise DataError(f"videos have mixed sizes: {array.shape[1:3]} and {size[1:3]}")
        constant = [index for index, array in zip(part, arrays, strict=True) if array.min() == array.max()]
        yield torch.from_numpy(np.stack(arrays)).movedim(-1, 1), constant
