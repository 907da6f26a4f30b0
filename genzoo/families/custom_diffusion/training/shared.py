"""What the tasks of both kinds of bases ask, say, write and refuse alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genzoo.core.errors import DataError, ShapeError, UsageError, did_you_mean, unused_options
from genzoo.core.types import Batch, LatentCodec
from genzoo.families.custom_diffusion.data.augmentation import Box, latent_mask
from genzoo.families.custom_diffusion.data.concept_list import MODIFIER
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.clients import export_for
from genzoo.families.custom_diffusion.files.concept import concept_bytes
from genzoo.families.custom_diffusion.files.write_layouts import write_concept

CONDITIONS = ("prompt", "negative_prompt", "any_prompt")


class LearnsWords(Protocol):
    """What a model that learns concepts says of its words."""

    modifier_tokens: tuple[str, ...]
    phrases: tuple[str, ...]

    def named_words(self, prompt: str) -> list[str]: ...


class TeachesConcepts(ABC):
    """Options, prompts and files of a task that trains concepts on pictures, beside pictures that keep their
    classes as they were. A kind of it names the model that it trains, and begins with `_begin`.

    prior: how the second kind counts, "plain" or "masked", and prior_loss_weight, see `losses.concept_loss`.
    normalize_mask_channels: divide the concept's term by the channels too.   sampler: a section such as
    {"name": "ddim", "steps": 200, "eta": 1.0, "guidance_scale": 6.0}; of a transformer its steps and
    guidance_scale count, beside the base's own scheduler.   prompts: what previews show; each phrase of the
    model when left out.   cache: a folder that keeps features of texts without new words and moments of
    pictures that never change, for the runs after this one; of a base with a UNet.   Batches are those of
    `dataset.ConceptImages`.
    """

    trains: type[nn.Module]
    trained = "concepts"
    model: Any

    def __init__(
        self,
        model: nn.Module,
        *,
        codec: LatentCodec | None = None,
        sampler: Mapping[str, Any] | None = None,
        prior: str = "plain",
        prior_loss_weight: float = 1.0,
        normalize_mask_channels: bool = False,
        prompts: Sequence[str] = (),
        cache: str | None = None,
    ) -> None:
        if not isinstance(model, self.trains):
            raise UsageError(f"this task trains {self.trained}, not a {type(model).__name__}")
        if codec is not None:
            raise UsageError("the base model brings its own autoencoder", fix="drop the section codec")
        if prior not in ("plain", "masked"):
            raise UsageError(f"prior={prior!r} is not known", fix="plain or masked")
        self.model = model
        self.options: dict[str, Any] = {
            "prior": prior,
            "prior_loss_weight": prior_loss_weight,
            "normalize_mask_channels": normalize_mask_channels,
        }
        self.prompts = tuple(prompts) or tuple(f"photo of a {phrase}" for phrase in self.model.phrases)
        self._begin(sampler, cache)

    @abstractmethod
    def _begin(self, sampler: Mapping[str, Any] | None, cache: str | None) -> None:
        """Make ready to read texts and to sample."""

    def conditions(
        self,
        num: int,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        any_prompt: bool = False,
        **unknown: Any,
    ) -> Batch:
        """Prompts for `num` samples: one for all, or several in turn; the task's own when left out.

        any_prompt: allow prompts without a word or phrase that was taught, to see what else has changed.
        """
        if unknown:
            raise unused_options(unknown, CONDITIONS)
        given = [prompt] if isinstance(prompt, str) else list(self.prompts if prompt is None else prompt)
        if not given:
            raise UsageError("there is no prompt", fix='prompt="photo of a <new1> cat"')
        for text in given:
            _check_prompt(self.model, text, any_prompt)
        return {
            "prompts": [given[index % len(given)] for index in range(num)],
            "negative_prompts": [negative_prompt] * num,
        }

    def export(
        self, path: str | Path, *, layout: str | None = None, half: bool = False, **notes: Any
    ) -> Path:
        """Write what was taught as a file of its own, in one of `export.LAYOUTS`."""
        base = BaseWeights(self.model.source) if layout in ("lora", "kohya") else None
        dtype = torch.float16 if half else None
        return write_concept(
            self.model.delta(**notes), path, layout=layout or "genzoo", base=base, dtype=dtype
        )

    def export_for(self, path: str | Path, *, client: str, **options: Any) -> tuple[Path, list[str]]:
        """Write the files of one of `clients.CLIENTS` into a new folder, and say how they are used."""
        base = BaseWeights(self.model.source)
        return export_for(self.model.delta(), path, client=client, base=base, **options)

    def file_bytes(self, *, half: bool = False, **notes: Any) -> bytes:
        """The content of that file in our own layout."""
        return concept_bytes(self.model.delta(**notes), dtype=torch.float16 if half else None)


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
