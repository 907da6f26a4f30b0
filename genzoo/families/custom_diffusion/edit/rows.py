"""From texts to rows: which rows of a text are edited, which rows of others are kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from genzoo.core.errors import NonFiniteError, UsageError
from genzoo.families.custom_diffusion.data.phrases import row_keys
from genzoo.families.custom_diffusion.edit.place import Group, Kept
from genzoo.pretrained.prompts import PromptEncoder, PromptFeatures

ROWS = ("tail", "last", "all")
EXPANSIONS = {
    "art": ("painting by {}", "art by {}", "artwork by {}", "picture by {}", "style of {}"),
    "object": ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}"),
}
SAME_ROW = 1e-9
# of each kept caption: most of its positions are padding, and these differ little from each other
NUM_PADDING = 12


class TextRows:
    """Padded features of texts of Stable Diffusion, each encoded once."""

    def __init__(self, encoder: PromptEncoder) -> None:
        self.encoder = encoder
        self._known: dict[str, tuple[Tensor, tuple[int, ...]]] = {}

    def features(self, text: str) -> tuple[Tensor, tuple[int, ...]]:
        """(l, d) float64 and the ids from BOS to EOS. Raises UsageError for a text that is cut off."""
        if text not in self._known:
            if self.encoder.num_chunks(text) > 1:
                raise UsageError(
                    f"the text {text[:48]!r} is too long for an edit",
                    why=f"the text encoder reads {self.encoder.max_length} tokens",
                    fix="name the thing in a few words",
                )
            (features,) = self.encoder.encode([text])
            rows = torch.cat([features.rows, self.encoder.padding_rows([text])]).double()
            if not bool(torch.isfinite(rows).all()):
                raise NonFiniteError(f"the text encoder gives NaN or infinite numbers for {text!r}")
            self._known[text] = (rows, features.ids)
        return self._known[text]

    def paired(self, texts: Sequence[str], which: str) -> list[Tensor]:
        """Rows (s, d) of each text, s alike, that stand for each other.

        last: the last token before EOS, of an empty text BOS.   tail: from there to the end, EOS and padding,
        cut to the shortest.   all: every row after BOS.
        """
        found = [self.features(text) for text in texts]
        if which == "all":
            return [rows[1:] for rows, _ in found]
        starts = [len(ids) - 2 for _, ids in found]
        count = 1 if which == "last" else len(found[0][0]) - max(starts)
        return [rows[start : start + count] for (rows, _), start in zip(found, starts, strict=True)]

    def groups(self, names: Sequence[str]) -> list[Group]:
        """All keys and values see the same rows."""
        return [Group(tuple(names))]

    def kept(self, captions: Sequence[str], sources: Sequence[str], explicit: Sequence[str] = ()) -> Kept:
        """See `kept_rows`."""
        return kept_rows(self, captions, sources=sources, explicit=explicit)

    def notes(self) -> list[str]:
        """What an edit of keys and values does not reach."""
        if len(self.encoder.widths) == 1:
            return []
        return ["the pooled text reaches the model beside keys and values, and is not edited"]


def expanded(text: str, expand: str | None) -> list[str]:
    """The text alone, and in the templates of EXPANSIONS."""
    if expand is None:
        return [text]
    if expand not in EXPANSIONS:
        raise UsageError(f"there are no templates {expand!r}", fix=" or ".join(EXPANSIONS))
    return [text, *(template.format(text) for template in EXPANSIONS[expand])]


def check_rows(which: str) -> None:
    """Raise UsageError for a rule that does not exist."""
    if which not in ROWS:
        raise UsageError(f"rows={which!r} is not known", fix=f"one of {', '.join(ROWS)}")


def check_different(source: Tensor, target: Tensor, texts: tuple[str, str]) -> None:
    """Raise UsageError when every row of the source is its own target; (s, d) each."""
    limit = SAME_ROW * torch.maximum(source.abs().max(), target.abs().max())
    if bool((source - target).abs().max() <= limit):
        raise UsageError(
            f"{texts[0]!r} and {texts[1]!r} are the same text row {0}: the edit changes nothing",
            fix='other words, or rows "tail"',
        )


def names_one_of(caption: str, sources: Sequence[str]) -> bool:
    """Whether one of some texts stands in a caption as whole words."""
    named = "|".join(rf"\b{re.escape(word.strip())}\b" for word in sources)
    return re.search(named, caption, re.IGNORECASE) is not None


def kept_rows(
    texts: TextRows, captions: Sequence[str], *, sources: Sequence[str], explicit: Sequence[str] = ()
) -> Kept:
    """What an edit holds on to: words of captions, some of their padding, BOS, and the empty prompt.

    captions that name a source are left out: they would hold on to what is edited.   explicit: texts that
    somebody asked to keep, never left out.
    """
    left_out = [caption for caption in captions if names_one_of(caption, sources)]
    used = [*explicit, *(caption for caption in captions if caption not in left_out)]
    edited = {texts.features(source)[1][:-1] for source in sources}
    counts: Counter[tuple[int, ...]] = Counter()
    places: dict[tuple[int, ...], int] = {}
    rows: list[Tensor] = []
    spans = []
    encoded = texts.encoder.encode(used)
    for features in encoded:
        keys = [key for key in row_keys(features.text, features.ids) if key not in edited]
        counts.update(keys)
        for key in keys:
            if key not in places:
                places[key] = len(rows)
                rows.append(features.rows[len(key) - 1])
        spans.append([places[key] for key in keys])
    weights = [float(counts[key]) for key in places]
    empty, _ = texts.features("")
    padding = _padding_sample(texts.encoder, used, encoded)
    known = torch.stack(rows).double() if rows else empty[:0]
    return Kept(
        # BOS is one row of all texts, and what pictures look at most
        rows=torch.cat([known, empty, padding]),
        weights=torch.tensor(
            [*weights, max(len(used), 1), *[1.0] * (len(empty) - 1 + len(padding))], dtype=torch.float64
        ),
        captions=[features.source for features in encoded],
        spans=spans,
        left_out=left_out,
    )


def _padding_sample(
    encoder: PromptEncoder, captions: Sequence[str], encoded: Sequence[PromptFeatures]
) -> Tensor:
    """NUM_PADDING rows of the padding after each of the captions' chunks, evenly spaced; (n, d) float64."""
    if not encoded:
        return torch.zeros(0, sum(encoder.widths), dtype=torch.float64)
    lengths = [encoder.max_length - len(features.ids) for features in encoded]
    found = encoder.padding_rows(captions).double()
    parts = [rows[:: max(1, len(rows) // NUM_PADDING)][:NUM_PADDING] for rows in found.split(lengths)]
    return torch.cat(parts)
