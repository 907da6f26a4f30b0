"""From features to named numbers: one small function for each metric of a protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.extraction import evenly
from genzoo.evaluation.measures.alignment import image_alignment, text_alignment
from genzoo.evaluation.measures.frechet import distance_between
from genzoo.evaluation.measures.inception_score import inception_score_adm, inception_score_torch_fidelity
from genzoo.evaluation.measures.kid import kernel_distance
from genzoo.evaluation.measures.precision_recall import precision_recall

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.evaluation.extraction import Features
    from genzoo.evaluation.reference import Reference

Score = Callable[..., dict[str, float]]
STATISTICS = {"fid": "pool", "sfid": "spatial", "frechet": "pool", "fvd": "pool"}
ROWS = {"inception_score": "logits", "kid": "pool", "precision_recall": "pool"}
# a published name belongs to the network it was published with
PLAIN_NAMES = {
    "fid": "frechet",
    "sfid": "spatial_frechet",
    "fvd": "video_frechet",
    "inception_score": "class_score",
}


def outputs_needed(metrics: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Outputs whose statistics, and outputs whose rows, a protocol's metrics need."""
    statistics = {STATISTICS[name] for name in metrics if name in STATISTICS}
    return statistics, {ROWS[name] for name in metrics if name in ROWS}


def score(
    metrics: Mapping[str, Mapping[str, Any]], generated: Features, reference: Reference, *, label: str = ""
) -> dict[str, float]:
    """Every metric by name; `label` renames those of a network that published numbers do not come from."""
    results: dict[str, float] = {}
    for name, options in metrics.items():
        if name not in _SCORES:
            continue
        for key, value in _SCORES[name](name, generated, reference, **options).items():
            plain = key.replace(name, PLAIN_NAMES.get(name, name)) if label else key
            results[f"{label}_{plain}" if label else key] = value
    return results


def _frechet(name: str, generated: Features, reference: Reference, *, ddof: int = 1) -> dict[str, float]:
    output = STATISTICS[name]
    if output not in reference.gaussians:
        raise DataError(f"the reference has no statistics for {name} ({output})", fix="make it from images")
    own, other = generated.statistics[output].gaussian(ddof=ddof), reference.gaussians[output]
    if len(own.mean) != len(other.mean):
        raise UsageError(
            f"the reference has {len(other.mean)} dimensions, the network gives {len(own.mean)}",
            fix="use a reference made with the same feature network",
        )
    return {name: distance_between(own, other)}


def _inception_score(
    name: str,
    generated: Features,
    reference: Reference,
    *,
    form: str,
    split_size: int = 5000,
    splits: int = 10,
    seed: int = 2020,
) -> dict[str, float]:
    logits = generated.rows["logits"]
    if form == "adm":
        result = inception_score_adm(logits.double().softmax(1), split_size=split_size)
    elif form == "torch-fidelity":
        result = inception_score_torch_fidelity(logits, splits=splits, seed=seed)
    else:
        raise UsageError(f"there is no Inception Score form {form!r}; use adm or torch-fidelity")
    return {name: result.mean, f"{name}_std": result.std}


def _kid(name: str, generated: Features, reference: Reference, **options: Any) -> dict[str, float]:
    result = kernel_distance(generated.rows["pool"], _rows(reference, "pool", name), **options)
    return {name: result.mean, f"{name}_std": result.std}


def _precision_recall(
    name: str, generated: Features, reference: Reference, *, k: int = 3, reference_num: int | None = None
) -> dict[str, float]:
    real = _rows(reference, "pool", name)
    if reference_num is not None:
        real = real[evenly(len(real), reference_num)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = precision_recall(generated.rows["pool"].to(device), real.to(device), k=k)
    return {"precision": result.precision, "recall": result.recall}


def _text_alignment(
    name: str, generated: Features, reference: Reference, *, scale: float
) -> dict[str, float]:
    return {name: text_alignment(generated.rows["clip"], generated.rows["text"], scale=scale)}


def _image_alignment(name: str, generated: Features, reference: Reference, **_: Any) -> dict[str, float]:
    """Taken for each concept's pictures, whose rows are numbered, then averaged."""
    network = name.removesuffix("_image")
    targets = [rows for key, rows in reference.rows.items() if key.startswith(f"{network}/")]
    values = [image_alignment(generated.rows[network], rows) for rows in targets]
    return {name: sum(values) / len(values)}


def _rows(reference: Reference, output: str, name: str) -> Tensor:
    if output not in reference.rows:
        raise DataError(
            f"{name} needs reference images, and this reference has statistics only",
            fix="use a reference with images (arr_0, or a folder)",
        )
    return reference.rows[output]


_SCORES: dict[str, Score] = {
    "fid": _frechet,
    "sfid": _frechet,
    "frechet": _frechet,
    "fvd": _frechet,
    "inception_score": _inception_score,
    "kid": _kid,
    "precision_recall": _precision_recall,
    "clip_text": _text_alignment,
    "clip_image": _image_alignment,
    "dino_image": _image_alignment,
}
