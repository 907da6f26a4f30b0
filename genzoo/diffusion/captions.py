"""Captions in training and prompts in sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genzoo.core.errors import DataError, UsageError, unused_options
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch


def training_captions(batch: Batch, caption_dropout: float, generator: SampleStreams) -> list[str]:
    """The batch's captions, some replaced by the empty one, which guidance needs. Raises DataError."""
    if "captions" not in batch:
        raise DataError("the data have no captions", why=f"a batch holds {', '.join(sorted(batch))}")
    dropped = (generator.rand() < caption_dropout).tolist()
    return ["" if drop else text for drop, text in zip(dropped, batch["captions"], strict=True)]


def check_captions(caption_dropout: float, prompts: Sequence[str]) -> None:
    """Raise UsageError for a dropout that is no probability, and for no prompts."""
    if not 0.0 <= caption_dropout < 1.0:
        raise UsageError(f"caption_dropout is a probability below 1, not {caption_dropout}")
    if not prompts:
        raise UsageError("prompts is empty", fix="name at least one, or leave it out")


def prompt_conditions(
    num: int,
    prompt: str | Sequence[str] | None,
    negative_prompt: str | None,
    usual: Sequence[str],
    unknown: Mapping[str, Any],
) -> Batch:
    """Prompts for `num` samples: one for all, or one for each; the usual ones, in turn, when left out."""
    if unknown:
        raise unused_options(unknown, ["prompt", "negative_prompt"])
    if prompt is None:
        prompts = [usual[index % len(usual)] for index in range(num)]
    else:
        prompts = [prompt] * num if isinstance(prompt, str) else list(prompt)
    if len(prompts) != num:
        raise UsageError(f"{len(prompts)} prompts for {num} samples", fix="pass one for each, or one for all")
    rows = {"prompts": prompts}
    return rows if negative_prompt is None else rows | {"negative_prompts": [negative_prompt] * num}
