"""Rows of a merge on bases of Stable Diffusion, whose CLIP text encoders are causal and padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from genzoo.core.errors import WeightsError
from genzoo.families.custom_diffusion.data.captions import regularisation_rows
from genzoo.families.custom_diffusion.data.phrases import row_keys, target_prompts
from genzoo.families.custom_diffusion.edit.place import Group
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.pretrained.prompts import load_prompt_encoder

Key = tuple[int, ...]


class PromptRows:
    """As `merge.place.ConceptTexts`; equal rows are told by the ids of all tokens up to them."""

    def __init__(self, base: str | Path, weights: BaseWeights) -> None:
        self._encoder = load_prompt_encoder(base)
        if sum(self.widths) != weights.width:
            raise WeightsError(
                f"the base's text encoders are {self.widths} wide, its cross-attention reads {weights.width}",
                where=weights.base,
            )

    @property
    def widths(self) -> list[int]:
        """Of each encoder's token embeddings."""
        return self._encoder.widths

    def groups(self, names: Sequence[str]) -> list[Group]:
        """All keys and values see the same rows."""
        return [Group(tuple(names))]

    def add_tokens(self, tokens: Mapping[str, Sequence[Tensor]]) -> None:
        """See `PromptEncoder.add_tokens`."""
        self._encoder.add_tokens(tokens)

    def is_word(self, token: str) -> bool:
        """Whether a token is read as one."""
        return len(self._encoder.token_ids(token)) == 1

    def targets(self, delta: ConceptDelta, form: str) -> Tensor:
        """Of a constraint the words of each phrase and its template, of a ridge each phrase from its first
        new word, or its beginning, to the end of the padding.
        """
        rows = self._words(delta) if form == "constraint" else self._tails(delta)
        return torch.stack(list(rows.values()))

    def kept(
        self, captions: Sequence[str], *, include_bos: bool, include_padding: bool, form: str
    ) -> tuple[Tensor, Tensor | None]:
        """See `regularisation_rows`; a ridge holds on to all that pictures look at."""
        found = regularisation_rows(
            self._encoder,
            captions,
            include_bos=include_bos or form == "ridge",
            include_padding=include_padding or form == "ridge",
        )
        return found, None

    def _words(self, delta: ConceptDelta) -> dict[Key, Tensor]:
        rows: dict[Key, Tensor] = {}
        prompts = [prompt for phrase in delta.phrases for prompt in target_prompts(phrase)]
        for features in self._encoder.encode(prompts):
            for key in row_keys(features.text, features.ids):
                rows.setdefault(key, features.rows[len(key) - 1])
        return rows

    def _tails(self, delta: ConceptDelta) -> dict[Key, Tensor]:
        encoder = self._encoder
        new = {encoder.token_ids(token)[0] for token in delta.tokens}
        rows: dict[Key, Tensor] = {}
        for phrase in delta.phrases:
            padding = encoder.padding_rows([phrase])
            for number, features in enumerate(encoder.encode([phrase])):
                taught = [place for place, one in enumerate(features.ids) if one in new]
                first = taught[0] if taught else 1
                for end in range(first, len(features.ids)):
                    rows.setdefault((number, *features.ids[: end + 1]), features.rows[end])
                count = encoder.max_length - len(features.ids)
                for place, row in enumerate(padding[:count]):
                    rows[(number, *features.ids, *[-1] * (place + 1))] = row
                padding = padding[count:]
        return rows
