"""Which rows of its phrases stand for a concept in a merge, and how much they weigh.

The paper's form holds the words' rows of each phrase exactly. Pictures look at the padding behind them as
well, and a phrase's words before the new one are everybody's; where the text is narrow, holding all of it
exactly leaves nothing for other prompts. The ridge comes near the rows from the new word to the padding's
end, and weighs them against what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.data.phrases import row_keys, target_prompts
from genzoo.families.custom_diffusion.edit.solve import FORMS, keep_factor
from genzoo.families.custom_diffusion.merge.algebra import MergePlan, plan_merge
from genzoo.families.custom_diffusion.merge.factor import factorise
from genzoo.families.custom_diffusion.merge.inputs import Entry
from genzoo.pretrained.prompts import PromptEncoder

# features are float32: what the rows span below this share of their largest direction is rounding
FEATURE_RANK_TOLERANCE = 1e-6
DEFAULT_SHARE, LAMB = 1.0, 0.5

Key = tuple[int, ...]


def check_form(form: str, share: float) -> None:
    """Raise UsageError for a form that does not exist, or a share that is no weight."""
    if form not in FORMS:
        raise UsageError(f"form={form!r} is not known", fix=f"one of {', '.join(FORMS)}")
    if not (math.isfinite(share) and share > 0):
        raise UsageError(f"a merge cannot have the share {share}", fix="above 0, such as 1")


def with_rows(entry: Entry, encoder: PromptEncoder, form: str) -> Entry:
    """The concept with the target rows of its phrases and their templates, every distinct row once."""
    for token in entry.delta.tokens:
        if len(encoder.token_ids(token)) != 1:
            raise WeightsError(f"the tokenizer cuts {token} into pieces", where=entry.label)
    prompts = [prompt for phrase in entry.delta.phrases for prompt in target_prompts(phrase)]
    rows = _words(prompts, encoder) if form == "constraint" else _tails(entry, encoder)
    return replace(entry, keys=tuple(rows), rows=torch.stack(list(rows.values())))


def _words(prompts: Sequence[str], encoder: PromptEncoder) -> dict[Key, Tensor]:
    rows: dict[Key, Tensor] = {}
    for features in encoder.encode(prompts):
        for key in row_keys(features.text, features.ids):
            rows.setdefault(key, features.rows[len(key) - 1])
    return rows


def _tails(entry: Entry, encoder: PromptEncoder) -> dict[Key, Tensor]:
    """Of each phrase from its first new word, or its beginning, to the end of the padding."""
    new = {encoder.token_ids(token)[0] for token in entry.delta.tokens}
    rows: dict[Key, Tensor] = {}
    for phrase in entry.delta.phrases:
        pieces = encoder.encode([phrase])
        padding = encoder.padding_rows([phrase])
        for number, features in enumerate(pieces):
            taught = [place for place, one in enumerate(features.ids) if one in new]
            first = taught[0] if taught else 1
            for end in range(first, len(features.ids)):
                rows.setdefault((number, *features.ids[: end + 1]), features.rows[end])
            count = encoder.max_length - len(features.ids)
            for place, row in enumerate(padding[:count]):
                rows[(number, *features.ids, *[-1] * (place + 1))] = row
            padding = padding[count:]
    return rows


def rows_of(entry: Entry) -> Tensor:
    """(s_n, d), once they are known."""
    assert entry.rows is not None
    return entry.rows


def plans(
    entries: Sequence[Entry], C_reg: Tensor, *, form: str, share: float, conflicts: str
) -> tuple[MergePlan, list[MergePlan]]:
    """What all projections share: of the merge, and of each concept merged alone."""
    every = torch.cat([rows_of(entry) for entry in entries])
    if form == "constraint":
        factor = factorise(C_reg, rank_tolerance=FEATURE_RANK_TOLERANCE)
        exact = [plan_merge(rows_of(e), C_reg, conflicts=conflicts, factor=factor) for e in entries]
        return plan_merge(every, C_reg, conflicts=conflicts, factor=factor), exact
    factor = keep_factor(C_reg, 1.0, LAMB)
    weights = balanced(entries, C_reg, share)
    alone = [
        plan_merge(rows_of(e), C_reg, factor=factor, weights=own)
        for e, own in zip(entries, weights, strict=True)
    ]
    return plan_merge(every, C_reg, factor=factor, weights=torch.cat(weights)), alone


def balanced(entries: Sequence[Entry], C_reg: Tensor, share: float) -> list[Tensor]:
    """A weight for each target row (s_n,), share |C_reg|^2 / (n |C_n|^2): the n concepts weigh alike,
    whatever the number of their rows, and together `share` times what is kept.
    """
    kept = float(C_reg.double().square().sum()) / len(entries)
    return [
        rows.new_full((len(rows),), share * kept / float(rows.square().sum()))
        for rows in (rows_of(entry).double() for entry in entries)
    ]
