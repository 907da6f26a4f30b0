"""Text encoders of a text-to-image folder: features of prompts, row by row, with words added to it.

CLIP's text transformers are causal, so prompts run unpadded: the rows equal those of a padded run, and
prompts that begin alike share their first rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.reading import read_json
from genzoo.pretrained.hub import is_hub_id, located, resolve
from genzoo.pretrained.text_features import cut_off, encode_ids, reads, tell_of_cut, tokenize


@dataclass(frozen=True)
class PromptFeatures:
    """ids: token ids from BOS to EOS.   rows: (l, d) float32, one per token."""

    text: str
    ids: tuple[int, ...]
    rows: Tensor


class PromptEncoder:
    """One text encoder, or the two of SDXL whose features are concatenated."""

    def __init__(self, tokenizers: Sequence[Any], models: Sequence[Any]) -> None:
        self.tokenizers, self.models = list(tokenizers), list(models)
        for model in self.models:
            model.eval().requires_grad_(False)

    @property
    def widths(self) -> list[int]:
        """Of each encoder's token embeddings."""
        return [model.get_input_embeddings().weight.shape[1] for model in self.models]

    def add_tokens(self, tokens: Mapping[str, Sequence[Tensor]]) -> None:
        """New words with one embedding row for each encoder. Raises UsageError if a word exists already."""
        for index, (tokenizer, model) in enumerate(zip(self.tokenizers, self.models, strict=True)):
            add_tokens(tokenizer, model, {token: rows[index] for token, rows in tokens.items()})

    def token_ids(self, token: str) -> list[int]:
        """What a word becomes, without BOS and EOS."""
        return list(self.tokenizers[0](token, add_special_tokens=False).input_ids)

    @property
    def max_length(self) -> int:
        """Tokens that are read of a text, its beginning and end included."""
        return min(_longest(model) for model in self.models)

    def reads(self, text: str, word: str) -> bool:
        """Whether the first `word` of a text is among the tokens that are read."""
        return reads(self.tokenizers[0], text, word, self.max_length)

    def encode(self, prompts: Sequence[str], *, batch_size: int = 32) -> list[PromptFeatures]:
        """Features of every prompt, cut at the encoder's longest text; what is cut off is logged."""
        ids = [self._ids(prompt) for prompt in prompts]
        for prompt, row in zip(prompts, ids, strict=True):
            if len(row) == self.max_length:
                tell_of_cut(prompt, cut_off(self.tokenizers[0], prompt, self.max_length))
        by_length: dict[int, list[int]] = {}
        for index, row in enumerate(ids):
            by_length.setdefault(len(row), []).append(index)
        found: dict[int, Tensor] = {}
        for indices in by_length.values():
            for start in range(0, len(indices), batch_size):
                chunk = indices[start : start + batch_size]
                rows = self._forward([torch.tensor([ids[i] for i in chunk])] * len(self.models))
                found.update(zip(chunk, rows, strict=True))
        return [PromptFeatures(prompt, ids[i], found[i]) for i, prompt in enumerate(prompts)]

    def padding_rows(self, prompts: Sequence[str], *, batch_size: int = 32) -> Tensor:
        """Rows (n, d) float32 of the padding after each prompt, as a pipeline appends it."""
        lengths = [len(self._ids(prompt)) for prompt in prompts]
        found = []
        for start in range(0, len(prompts), batch_size):
            chunk = list(prompts[start : start + batch_size])
            pairs = zip(self.tokenizers, self.models, strict=True)
            ids = [tokenize(tokenizer, chunk, _longest(model)) for tokenizer, model in pairs]
            rows = self._forward(ids)
            found += [row[length:] for row, length in zip(rows, lengths[start:], strict=False)]
        return torch.cat(found)

    def _ids(self, prompt: str) -> tuple[int, ...]:
        found = [
            tuple(tokenizer(prompt, truncation=True, max_length=_longest(model)).input_ids)
            for tokenizer, model in zip(self.tokenizers, self.models, strict=True)
        ]
        if len(set(found)) > 1:
            raise WeightsError(
                f"the two tokenizers read {prompt!r} differently, so their features do not align"
            )
        return found[0]

    @torch.no_grad()
    def _forward(self, ids: Sequence[Tensor]) -> Tensor:
        """(b, l) each -> (b, l, d) float32: the last layer with its norm, or SDXL's two before the last."""
        return encode_ids(self.models, ids).hidden.float()


def add_tokens(tokenizer: Any, model: Any, tokens: Mapping[str, Tensor]) -> None:
    """Add words to one tokenizer and write their rows into its model's embedding, which grows."""
    present = [token for token in tokens if len(tokenizer(token, add_special_tokens=False).input_ids) == 1]
    if present:
        raise UsageError(
            f"the tokenizer knows the word {present[0]!r} already",
            fix="rename the concept's token, such as to <new2>",
        )
    if not tokens:
        return
    width = model.get_input_embeddings().weight.shape[1]
    wrong = {token: tuple(row.shape) for token, row in tokens.items() if tuple(row.shape) != (width,)}
    if wrong:
        raise WeightsError(
            f"the text encoder is {width} wide; the concept's token {next(iter(wrong))} has another shape",
            why=str(wrong),
            fix="use the base model that the concept was trained from",
        )
    tokenizer.add_tokens(list(tokens))
    old = model.get_input_embeddings().weight
    # the new rows would be sampled from the old ones' statistics: plain growth, then every row is written
    model.resize_token_embeddings(max(len(tokenizer), len(old)), mean_resizing=False)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        for token, row in tokens.items():
            table[tokenizer.convert_tokens_to_ids(token)] = row.to(table)


def load_prompt_encoder(base: str | Path) -> PromptEncoder:
    """The tokenizers and text encoders of a folder or hub id in diffusers' layout, in float32 on the CPU."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    base = located(base)
    suffixes = ["", "_2"] if _has_second(base) else [""]
    tokenizers, models = [], []
    for suffix in suffixes:
        resolve(base, "config.json", subfolder=f"text_encoder{suffix}")
        cls = CLIPTextModelWithProjection if suffix else CLIPTextModel
        try:
            tokenizers.append(CLIPTokenizer.from_pretrained(str(base), subfolder=f"tokenizer{suffix}"))
            models.append(
                cls.from_pretrained(
                    str(base), subfolder=f"text_encoder{suffix}", dtype=torch.float32, use_safetensors=True
                )
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"cannot read tokenizer{suffix} or text_encoder{suffix}",
                where=str(base),
                why=str(error).strip().partition("\n")[0][:200],
                fix="use a folder in diffusers' layout with safetensors weights",
            ) from error
    return PromptEncoder(tokenizers, models)


def _has_second(base: str | Path) -> bool:
    if Path(base).is_dir():
        return (Path(base) / "text_encoder_2").is_dir()
    if not is_hub_id(base):
        return False
    return "text_encoder_2" in read_json(resolve(base, "model_index.json"), error=WeightsError)


def _longest(model: Any) -> int:
    return int(model.config.max_position_embeddings)
