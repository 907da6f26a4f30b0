"""Rows of a merge on bases with a transformer, as their pipelines read texts.

T5's rows depend on the whole text, Gemma's on what comes before: rows are alike where their numbers are.
Padding is masked, or it is the same whatever the text says (learnt, or zeros): then it always stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.data.phrases import target_prompts
from genzoo.families.custom_diffusion.edit.place import Group
from genzoo.families.custom_diffusion.edit.text_models import TransformerTexts
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.pretrained.pipeline_text import EncodedText


class TransformerRows:
    """As `merge.place.ConceptTexts`; of HunyuanDiT the rows of both its encoders."""

    def __init__(self, base: str | Path, weights: BaseWeights) -> None:
        self._texts = TransformerTexts(base, weights.files)
        self._encoder = self._texts.encoder

    @property
    def widths(self) -> list[int]:
        """Of each encoder's token embeddings."""
        return self._encoder.widths

    def groups(self, names: Sequence[str]) -> list[Group]:
        """See `TransformerTexts.groups`."""
        return self._texts.groups(names)

    def add_tokens(self, tokens: Mapping[str, Sequence[Tensor]]) -> None:
        """See `PipelineText.add_tokens`."""
        self._encoder.add_tokens(tokens)

    def is_word(self, token: str) -> bool:
        """Whether every tokenizer reads a token as one."""
        return all(len(ids) == 1 for ids in self._encoder.token_ids(token))

    def targets(self, delta: ConceptDelta, form: str) -> Tensor:
        """Of a constraint the words of each phrase, alone and in its template, to the end token where there
        is one; of a ridge each phrase from its first new word, or its beginning, to there.
        """
        rows = self._words(delta) if form == "constraint" else self._tails(delta)
        return torch.stack(list({_key(row): row for row in rows}.values()))

    def kept(
        self, captions: Sequence[str], *, include_bos: bool, include_padding: bool, form: str
    ) -> tuple[Tensor, Tensor | None]:
        """Every row of the captions, but for what stands before all texts, unless it is wanted or the form is
        a ridge; and the padding that pictures see, once a caption.
        """
        if include_padding:
            raise UsageError(
                "padding is not included on bases with a transformer",
                fix="leave it out: padding that pictures look at stays without being asked",
            )
        counts: Counter[bytes] = Counter()
        rows: dict[bytes, Tensor] = {}
        starts = [0, 0] if include_bos or form == "ridge" else self._starts()
        for text in captions:
            sequences = self._texts.sequences(self._encoder.read(text))
            for first, sequence in zip(starts, sequences, strict=False):
                rows |= {_key(row): row for row in sequence[first:]}
                counts.update(map(_key, sequence[first:]))
        for row in () if self._texts.padding is None else self._texts.padding:
            rows[_key(row)] = row
            counts[_key(row)] += len(captions)
        # norms of a layer's own take away what rows are scaled by: that waits until they have passed
        return torch.stack(list(rows.values())), torch.tensor([counts[key] for key in rows])

    def _words(self, delta: ConceptDelta) -> Iterator[Tensor]:
        for phrase in delta.phrases:
            parts = self._read(phrase, delta)
            lengths = [len(part.rows) - start for part, start in zip(parts, self._starts(), strict=True)]
            for prompt in target_prompts(phrase):
                sequences = self._texts.sequences(self._texts.whole(prompt))
                for rows, length in zip(sequences, lengths, strict=True):
                    yield from rows[-length:]

    def _tails(self, delta: ConceptDelta) -> Iterator[Tensor]:
        for phrase in delta.phrases:
            parts = self._read(phrase, delta)
            for number, (part, rows) in enumerate(zip(parts, self._texts.sequences(parts), strict=True)):
                new = {self._encoder.token_ids(token)[number][0] for token in delta.tokens}
                taught = [place for place, one in enumerate(part.ids) if one in new]
                yield from rows[taught[0] if taught else self._starts()[number] :]

    def _starts(self) -> list[int]:
        """How many rows stand before any text, in each sequence: of a first token, or of an instruction."""
        return [len(part.rows) - part.ends for part in self._encoder.read("")]

    def _read(self, phrase: str, delta: ConceptDelta) -> list[EncodedText]:
        """A phrase's sequences, of which each has to hold the new words."""
        parts = self._texts.whole(phrase)
        for token in delta.tokens:
            ids = self._encoder.token_ids(token)
            lost = any(one not in part.ids for (one,), part in zip(ids, parts, strict=True))
            if lost and token.lower() in phrase.lower().split():
                raise WeightsError(
                    f"the base does not read the word {token} in {phrase!r}",
                    why="its pipeline changes texts before they are read, such as capitals to small letters",
                    fix="teach it under a word in small letters",
                )
        return parts


def _key(row: Tensor) -> bytes:
    return row.numpy().tobytes()
