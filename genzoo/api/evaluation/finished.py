"""Whether a run was judged already, in just this way: then a sweep that was stopped goes on behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import DataError
from genzoo.data.picture_sets import DatasetPictures, content_hash, open_pictures
from genzoo.evaluation.judging import Settings, begin, must_match
from genzoo.evaluation.measuring import open_reference
from genzoo.evaluation.result import EvaluationResult, load_result
from genzoo.pretrained.known_weights import file_sha256

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData


def finished_result(
    path: Path, run: RunData, reference: Any, made: Mapping[str, Any], judging: Mapping[str, Any]
) -> EvaluationResult | None:
    """The result in a file, if it is of these samples, this reference, this network and these intervals.

    made: how samples are made now, as a result states it.   judging: what `evaluate` would be called with.
    Clips are always judged again.
    """
    named, settings = judging["protocol"], judging["settings"]
    if named.kind == "clips" or not path.is_file():
        return None
    try:
        found = load_result(path)
    except DataError:  # damaged, or of another version: it is made anew
        return None
    if dict(found.sampling) != _plain(made) or not _has_intervals(found, settings):
        return None
    num, network = judging["num"], judging["network"]
    networks = {named.network: (network, None)}
    used = begin(named, available=num or named.num, num=num, networks=networks, settings=settings)
    controls = judging.get("controls")
    wanted = must_match(used) | {"reference": _digest(run, reference)}
    wanted |= {} if controls is None else {"controls": content_hash(open_pictures(controls))}
    return found if all(found.comparable.get(key) == value for key, value in _plain(wanted).items()) else None


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it is read back from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain


def _has_intervals(found: EvaluationResult, settings: Settings) -> bool:
    how = settings.intervals
    if how is None or not found.intervals:
        return how is None and not found.intervals
    extrapolated = any("_infinity" in name for name in found.metrics)
    stated = {(one["level"], one["seed"]) for one in found.intervals.values() if one["seed"] is not None}
    return extrapolated == (how.infinity is not None) and stated <= {(how.level, how.seed)}


def _digest(run: RunData, reference: Any) -> str:
    opened = DatasetPictures(run.dataset()) if reference is None else open_reference(reference)
    return file_sha256(opened) if isinstance(opened, Path) else content_hash(opened)
