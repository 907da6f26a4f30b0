"""Judging clips, for FVD above all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genzoo.core.errors import DataError, UsageError
from genzoo.data.array_files import Array
from genzoo.data.picture_sets import DatasetPictures, PictureSet, content_hash
from genzoo.evaluation.clip_sources import ClipSet, choose_clips, real_clips
from genzoo.evaluation.counts import require_enough
from genzoo.evaluation.judging import Judging, Network, Settings, begin, judge, name_of, size_of
from genzoo.evaluation.measuring import features_of, reference_of
from genzoo.evaluation.protocols import Protocol, load_protocol
from genzoo.evaluation.result import EvaluationResult


def evaluate_clips(
    source: str | Path | Array,
    *,
    protocol: str | Protocol,
    reference: str | Path | Array | DatasetPictures,
    num: int | None = None,
    network: Network = None,
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
    named = load_protocol(protocol, kinds=("clips",), judge="evaluate_clips")
    opened = ClipSet(source, frames=named.clips["frames"])
    networks = {named.network: (network, weights)}
    judging = begin(named, available=len(opened), num=num, networks=networks, settings=settings)
    clips = judging.first(opened, "clips")
    real = _real_clips(reference, judging, opened.frames)
    require_enough(judging.used, len(clips), len(real))
    _same_size(real, clips)
    generated = features_of(clips, judging, "generated")
    return judge(
        generated,
        reference_of(real, judging),
        judging,
        comparable={"generated clips": generated.count, "clip size": size_of(clips)},
        described={"sha256": content_hash(clips), "short videos left out": opened.short},
        reference_name=reference_name or name_of(reference),
        sampling=sampling,
    )


def _real_clips(reference: str | Path | Array | DatasetPictures, judging: Judging, frames: int) -> PictureSet:
    cut, notes = judging.used.clips, judging.notes
    if isinstance(reference, DatasetPictures):
        if len(reference.dataset.sample_shape) != 4:
            raise UsageError("the data set holds images, not clips", fix="name a reference of videos")
        notes.differences.append("reference clips as the data set cuts them, without augmentation")
        real: PictureSet = reference
    else:
        real = real_clips(reference, cut, frames)
    wanted = judging.used.reference.get("num") or len(real)
    if len(real) < wanted:
        notes.differences.append(f"{len(real)} reference clips instead of {wanted}")
    return choose_clips(real, min(wanted, len(real)), select=cut["select"], seed=cut["seed"])


def _same_size(real: PictureSet, generated: PictureSet) -> None:
    if size_of(real) != size_of(generated):
        raise DataError(
            f"generated clips are {size_of(generated)}, reference clips {size_of(real)}"
            " (frames x height x width)",
            why="their features would differ by more than what is judged",
            fix="bring the reference to the size of the generated clips, and state how",
        )
