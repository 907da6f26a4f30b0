"""What every model that learns concepts has in common: its words, and what was taught as a concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.files.base_weights import base_name, base_place
from genzoo.families.custom_diffusion.files.concept import ConceptDelta


def check_phrases(tokens: Sequence[str], phrases: Sequence[str]) -> None:
    """Raise UsageError for a new word in no phrase, and where there is nothing to teach."""
    words = {word.lower() for phrase in phrases for word in phrase.split()}
    unused = [token for token in tokens if token.lower() not in words]
    if unused and phrases:
        raise UsageError(
            f"no phrase has the new word {unused[0]}",
            why=f"the phrases are {', '.join(map(repr, phrases))}",
            fix=f'such as "{unused[0]} cat"',
        )
    if not tokens and not phrases:
        raise UsageError(
            "there is neither a new word nor a phrase to teach",
            fix='model.modifier_tokens=["<new1>"], or a phrase for a concept without a word of its own',
        )


def named_in(prompt: str, tokens: Sequence[str]) -> list[str]:
    """Which of the new words a prompt holds."""
    words = prompt.lower()
    return [token for token in tokens if token.lower() in words]


@torch.no_grad()
def delta_of(
    weights: Mapping[str, Tensor],
    tokens: Mapping[str, Sequence[Tensor]],
    *,
    phrases: Sequence[str],
    base: str,
    base_fingerprint: str,
    notes: Mapping[str, Any],
) -> ConceptDelta:
    """A concept of copies of the trained weights, by name, and of each word's rows, one per text encoder."""
    return ConceptDelta(
        weights={name: _copied(value) for name, value in weights.items()},
        tokens={token: [_copied(row) for row in rows] for token, rows in tokens.items()},
        phrases=tuple(phrases),
        base_model=base_name(base),
        base_fingerprint=base_fingerprint,
        notes={**base_place(base), **notes},
    )


def _copied(value: Tensor) -> Tensor:
    return value.detach().cpu().clone()
