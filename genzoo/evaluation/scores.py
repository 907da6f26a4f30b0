"""From features to named numbers with intervals: the table of metrics that protocols name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from genzoo.evaluation.scoring import balls, frechet, kernels, samples
from genzoo.evaluation.scoring.frechet import STATISTICS
from genzoo.evaluation.scoring.rows import Estimates

if TYPE_CHECKING:
    from genzoo.evaluation.extraction import Features
    from genzoo.evaluation.intervals.estimate import Uncertainty
    from genzoo.evaluation.reference import Reference

Score = Callable[..., Estimates]
ROWS = {
    "inception_score": "logits",
    **dict.fromkeys(("kid", "kid_all", "precision_recall", "prdc", "mind", "cmmd", "jedi", "vendi"), "pool"),
}
WITHOUT_REFERENCE = ("inception_score", "vendi")  # they look at generated rows alone
# a published name belongs to the network it was published with
PLAIN_NAMES = {
    "fid": "frechet",
    "fdd": "frechet",
    "sfid": "spatial_frechet",
    "fvd": "video_frechet",
    "inception_score": "class_score",
    "cmmd": "gaussian_mmd",
    "jedi": "second_moment_mmd",
}
_SCORES: dict[str, Score] = {
    **dict.fromkeys(STATISTICS, frechet.score_frechet),
    "inception_score": samples.score_inception_score,
    "kid": kernels.score_kid,
    "kid_all": kernels.score_kid_all,
    "cmmd": kernels.score_cmmd,
    "jedi": kernels.score_jedi,
    "mind": samples.score_mind,
    "precision_recall": balls.score_precision_recall,
    "prdc": balls.score_prdc,
    "vendi": samples.score_vendi,
    "clip_text": samples.score_text_alignment,
    "clip_image": samples.score_image_alignment,
    "dino_image": samples.score_image_alignment,
}


def outputs_needed(metrics: Mapping[str, Any], *, intervals: bool = False) -> tuple[set[str], set[str]]:
    """Outputs whose statistics, and outputs whose rows, a protocol's metrics need.

    intervals: of generated images that are to have them, the rows of Fréchet distances too.
    """
    statistics = {STATISTICS[name] for name in metrics if name in STATISTICS}
    rows = {ROWS[name] for name in metrics if name in ROWS}
    return statistics, rows | (statistics if intervals else set())


def score(
    metrics: Mapping[str, Mapping[str, Any]],
    generated: Features,
    reference: Reference,
    *,
    label: str = "",
    own: Iterable[str] = (),
    how: Uncertainty | None = None,
) -> Estimates:
    """Every metric by name, with its interval unless `how` is None.

    label: put before the names of a network that published numbers do not come from.   own: metrics that were
    published with it all the same, whose names stay.
    """
    results: Estimates = {}
    for name, options in metrics.items():
        if name not in _SCORES:
            continue
        renamed = bool(label) and name not in own
        for key, estimate in _SCORES[name](name, generated, reference, how, **options).items():
            plain = key.replace(name, PLAIN_NAMES.get(name, name)) if renamed else key
            results[f"{label}_{plain}" if renamed else key] = estimate
    return results
