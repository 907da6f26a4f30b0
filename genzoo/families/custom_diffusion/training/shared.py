"""What the tasks of both kinds of bases ask, say and refuse alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from genzoo.core.errors import DataError, ShapeError, UsageError, did_you_mean
from genzoo.core.types import Batch, LatentCodec
from genzoo.families.custom_diffusion.data.augmentation import Box, latent_mask
from genzoo.families.custom_diffusion.data.concept_list import MODIFIER

CONDITIONS = ("prompt", "negative_prompt", "any_prompt")


class LearnsWords(Protocol):
    """What a model that learns concepts says of its words."""

    modifier_tokens: tuple[str, ...]
    phrases: tuple[str, ...]

    def named_words(self, prompt: str) -> list[str]: ...


def check_prior(prior: str, codec: LatentCodec | None) -> None:
    """Raise UsageError for a rule that does not exist, and for an autoencoder beside the base's."""
    if codec is not None:
        raise UsageError("the base model brings its own autoencoder", fix="drop the section codec")
    if prior not in ("plain", "masked"):
        raise UsageError(f"prior={prior!r} is not known", fix="plain or masked")


def own_prompts(model: LearnsWords) -> tuple[str, ...]:
    """What previews show when nobody says it."""
    return tuple(f"photo of a {phrase}" for phrase in model.phrases)


def prompts_for(
    model: LearnsWords,
    num: int,
    prompt: str | Sequence[str] | None,
    negative_prompt: str | None,
    any_prompt: bool,
    *,
    own: Sequence[str],
) -> Batch:
    """Prompts for `num` samples: one for all, or several in turn; `own` when left out.

    any_prompt: allow prompts without a word or phrase that was taught.
    """
    given = [prompt] if isinstance(prompt, str) else list(own if prompt is None else prompt)
    if not given:
        raise UsageError("there is no prompt", fix='prompt="photo of a <new1> cat"')
    for text in given:
        _check_prompt(model, text, any_prompt)
    return {
        "prompts": [given[index % len(given)] for index in range(num)],
        "negative_prompts": [negative_prompt] * num,
    }


def _check_prompt(model: LearnsWords, text: str, any_prompt: bool) -> None:
    tokens = [token.lower() for token in model.modifier_tokens]
    strange = [word for word in MODIFIER.findall(text.lower()) if word not in tokens]
    if strange:
        raise UsageError(
            f"the model has not learnt the word {strange[0]}",
            fix=did_you_mean(strange[0], tokens) or f"it knows {', '.join(tokens) or 'no new word'}",
        )
    taught = [*tokens, *(phrase.lower() for phrase in model.phrases)]
    if not any_prompt and not any(words in text.lower() for words in taught):
        raise UsageError(
            f"the prompt {text!r} has none of the words that were taught",
            why=f"these are {', '.join(model.modifier_tokens or model.phrases)}",
            fix="any_prompt=true samples it nevertheless",
        )


def masks(boxes: Tensor, like: Tensor, size: int) -> Tensor:
    """(b, 1, h, w) of the rows' boxes (b, 4) in pixels, on the grid of the latents."""
    side = like.shape[-1]
    if like.shape[-2] != side or size % side:
        raise ShapeError(
            f"pictures of {size} pixels and latents {tuple(like.shape[-2:])} do not fit together"
        )
    rows = []
    for numbers in boxes.tolist():
        box: Box | None = None if numbers[0] < 0 else tuple(numbers)
        rows.append(latent_mask(size, box, factor=size // side))
    return torch.stack(rows)[:, None].to(like)


def require_words(model: LearnsWords, captions: Sequence[str]) -> None:
    """Raise DataError for a caption of the concept's pictures that teaches nothing new."""
    for caption in captions:
        taught = [*model.named_words(caption), *(p for p in model.phrases if p.lower() in caption.lower())]
        if not taught:
            raise DataError(
                f"the prompt {caption!r} has none of the words to teach",
                why=f"these are {', '.join(model.modifier_tokens or model.phrases)}",
                fix='put one in, such as "photo of a <new1> cat"',
            )
