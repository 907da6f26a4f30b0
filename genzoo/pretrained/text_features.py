"""Features of prompts, as the text encoders of Stable Diffusion 1.x, 2.x and XL give them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextFeatures:
    """hidden: (b, l, d), what cross-attention looks at.   pooled: (b, p), SDXL only."""

    hidden: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def zeros_like(self) -> TextFeatures:
        """All zeros, SDXL's features of a prompt that was left out."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return TextFeatures(torch.zeros_like(self.hidden), pooled)

    def expand(self, num: int) -> TextFeatures:
        """One row for each of `num` samples, from one row or as many."""
        pooled = None if self.pooled is None else self.pooled.expand(num, -1)
        return TextFeatures(self.hidden.expand(num, -1, -1), pooled)

    def to(self, like: Tensor) -> TextFeatures:
        """On the device and in the dtype of a tensor."""
        return TextFeatures(self.hidden.to(like), None if self.pooled is None else self.pooled.to(like))


def concatenate(parts: Sequence[TextFeatures]) -> TextFeatures:
    """Rows of several features, one below the other."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return TextFeatures(torch.cat([part.hidden for part in parts]), torch.cat(pooled) if pooled else None)


def tokenize(tokenizer: Any, prompts: Sequence[str], max_length: int) -> Tensor:
    """Ids (b, l), cut and padded to max_length. What is cut off is logged, once for each text."""
    ids: Tensor = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=max_length, return_tensors="pt"
    ).input_ids
    for prompt, full in zip(prompts, (ids[:, -2] != tokenizer.pad_token_id).tolist(), strict=True):
        if full:  # one token more than the last could hold, or just all of them
            tell_of_cut(prompt, cut_off(tokenizer, prompt, max_length))
    return ids


def cut_off(tokenizer: Any, text: str, max_length: int) -> str:
    """The end of a text that an encoder of `max_length` tokens does not read; empty when it reads all."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return str(tokenizer.decode(ids[max_length - 2 :])).strip()


def reads(tokenizer: Any, text: str, word: str, max_length: int) -> bool:
    """Whether the first `word` of a text, whatever its case, is among the tokens that an encoder reads."""
    end = text.lower().find(word.lower()) + len(word)
    return len(tokenizer(text[:end], add_special_tokens=False, verbose=False).input_ids) <= max_length - 2


@lru_cache(maxsize=4096)
def tell_of_cut(text: str, tail: str) -> None:
    """Log, once for each text, what of it is not read."""
    if tail:
        logger.warning("the text encoder does not read the end of %r: %r is cut off", text[:80], tail[:200])


def encode_ids(text_encoders: Sequence[Any], ids: Sequence[Tensor]) -> TextFeatures:
    """One encoder's last layer after its norm; of two, the layers before the last side by side, and the
    second one's projected end of text.   ids: (b, l) each.
    """
    device = next(text_encoders[0].parameters()).device
    if len(text_encoders) == 1:
        return TextFeatures(text_encoders[0](input_ids=ids[0].to(device)).last_hidden_state)
    outputs = [
        encoder(input_ids=rows.to(device), output_hidden_states=True)
        for encoder, rows in zip(text_encoders, ids, strict=True)
    ]
    hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return TextFeatures(hidden, outputs[-1].text_embeds)
