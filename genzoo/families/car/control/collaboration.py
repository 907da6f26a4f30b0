"""Collaborative decoding: a large model draws the coarse scales, a small one the fine ones.

Chen et al. 2024, "Collaborative Decoding Makes Visual Auto-Regressive Modeling Efficient" (CoDe). Fine scales
hold most of the tokens and ask least of a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from genzoo.autoregression.sampling import NextScaleOptions, Weight
from genzoo.core.contracts.tasks import recorded_facts
from genzoo.core.errors import UsageError
from genzoo.core.types import Batch
from genzoo.families.car.control.decoder import MixedDecoder
from genzoo.families.car.control.model import CAR
from genzoo.families.car.control.steering import Controlled, decoder_for
from genzoo.families.car.var.model import VAR


class CollaborativeDecoder:
    """Predicts the first `draft_scales` scales by one decoder and the others by another, which reads all."""

    def __init__(self, drafter: MixedDecoder, refiner: MixedDecoder, draft_scales: int) -> None:
        self.refiner, self.draft_scales = refiner, draft_scales
        self._drafter: MixedDecoder | None = drafter
        self._read: list[Tensor | None] = []

    def __call__(self, scale: int, read: Tensor | None) -> list[tuple[Weight, Tensor]]:
        """As `MixedDecoder`."""
        if scale < self.draft_scales:
            assert self._drafter is not None
            self._read.append(read)
            return self._drafter(scale, read)
        self._drafter = None  # its caches are not needed any more
        for past, map_ in enumerate(self._read):
            self.refiner.follow(past, map_)
        self._read = []
        return self.refiner(scale, read)


def predictor(
    task: Controlled, model: VAR | CAR, labels: Tensor, conditions: Batch, options: NextScaleOptions
) -> MixedDecoder | CollaborativeDecoder:
    """What predicts scale after scale, by one run or by two.   labels: (b,), or (2b,) with guidance."""
    own = decoder_for(task, model, labels, conditions, options)
    if "refiner" not in conditions:
        return own
    other: Controlled = conditions["refiner"][0]
    small = other.half(other.model) if options.precision == "bf16" else other.model
    refiner = decoder_for(other, small, labels, conditions, options)
    return CollaborativeDecoder(own, refiner, conditions["draft_scales"][0])


def refiner_conditions(
    task: Controlled, num: int, refiner_run: Mapping[str, Any] | None, draft_scales: int | None
) -> dict[str, Any]:
    """The rows of `conditions` that say who draws which scales. Raises UsageError for unlike models."""
    if refiner_run is None and draft_scales is None:
        return {}
    if refiner_run is None or draft_scales is None:
        fix = "give refiner_run=RUN and draft_scales=8: how many scales this run draws"
        raise UsageError("two runs share the scales, or one draws all", fix=fix)
    if len(refiner_run) != 1:
        raise UsageError(f"refiner_run names {len(refiner_run)} runs", fix="name one")
    ((place, refiner),) = refiner_run.items()
    count = len(task.codec.patch_nums)
    if isinstance(draft_scales, bool) or not isinstance(draft_scales, int) or not 0 <= draft_scales <= count:
        raise UsageError(f"draft_scales is {draft_scales!r}", fix=f"use a number of scales from 0 to {count}")
    _require_same_tokens(task, refiner, place)
    return {
        "draft_scales": [draft_scales] * num,
        "refiner_run": [place] * num,
        "refiner": [refiner] * num,
    }


def _require_same_tokens(task: Controlled, refiner: Any, place: str) -> None:
    """Raise UsageError unless both models speak of the same tokens, classes and controls."""
    ours = _base(task.model)
    theirs = _base(refiner.model) if isinstance(refiner, type(task)) else None
    if theirs is None:
        raise UsageError("scales are shared with a VAR or a CAR only", where=place)
    if refiner.codec.fingerprint != task.codec.fingerprint:
        raise UsageError("this run reads the tokens of another VQVAE", where=place)
    if theirs.num_classes != ours.num_classes:
        raise UsageError(
            f"this run has {theirs.num_classes} classes and the one to be sampled {ours.num_classes}",
            where=place,
        )
    known, other = recorded_facts(task), recorded_facts(refiner)
    if any(known[name] != other[name] for name in known.keys() & other.keys()):
        raise UsageError("this run was trained on controls of another extractor", where=place)


def _base(model: Any) -> VAR:
    return model if isinstance(model, VAR) else model.base
