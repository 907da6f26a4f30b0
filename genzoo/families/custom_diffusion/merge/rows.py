"""Which rows of its phrases stand for a concept in a merge, and how much they weigh.

The paper's form holds the words' rows of each phrase exactly. Pictures look at the padding behind them as
well, and a phrase's words before the new one are everybody's; where the text is narrow, holding all of it
exactly leaves nothing for other prompts. The ridge comes near the rows from the new word to the padding's
end, and weighs them against what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.edit.place import Group
from genzoo.families.custom_diffusion.edit.solve import FORMS, keep_factor
from genzoo.families.custom_diffusion.merge.algebra import MergePlan, plan_merge
from genzoo.families.custom_diffusion.merge.factor import factorise
from genzoo.families.custom_diffusion.merge.inputs import Entry
from genzoo.families.custom_diffusion.merge.place import ConceptTexts

# features are float32: what the rows span below this share of their largest direction is rounding
FEATURE_RANK_TOLERANCE = 1e-6
DEFAULT_SHARE, LAMB = 1.0, 0.5


def check_form(form: str, share: float) -> None:
    """Raise UsageError for a form that does not exist, or a share that is no weight."""
    if form not in FORMS:
        raise UsageError(f"form={form!r} is not known", fix=f"one of {', '.join(FORMS)}")
    if not (math.isfinite(share) and share > 0):
        raise UsageError(f"a merge cannot have the share {share}", fix="above 0, such as 1")


def with_rows(entry: Entry, texts: ConceptTexts, form: str) -> Entry:
    """The concept with the target rows of its phrases and their templates, every distinct row once."""
    for token in entry.delta.tokens:
        if not texts.is_word(token):
            raise WeightsError(f"the tokenizer cuts {token} into pieces", where=entry.label)
    return replace(entry, rows=texts.targets(entry.delta, form))


def rows_of(entry: Entry) -> Tensor:
    """(s_n, d), once they are known."""
    assert entry.rows is not None
    return entry.rows


@dataclass(frozen=True)
class GroupPlan:
    """What projections that see the same rows share.   rows: (s_n, d) of each concept, float64, as they see
    them.   plan: of the merge.   alone: of each concept merged alone.
    """

    names: tuple[str, ...]
    rows: list[Tensor]
    plan: MergePlan
    alone: list[MergePlan]


def plan_group(
    group: Group,
    entries: Sequence[Entry],
    C_reg: Tensor,
    counts: Tensor | None,
    *,
    form: str,
    share: float,
    conflicts: str,
) -> GroupPlan:
    """One factorisation of the rows C_reg (s_reg, d), as the group sees them, for all its projections.

    counts: how often each counts, (s_reg,), once when left out.
    """
    rows, kept = [group(rows_of(entry)) for entry in entries], group(C_reg)
    if counts is not None:
        kept = kept * counts.double().sqrt()[:, None]
    if form == "constraint":
        factor = factorise(kept, rank_tolerance=FEATURE_RANK_TOLERANCE)
        plan = plan_merge(torch.cat(rows), kept, conflicts=conflicts, factor=factor)
        alone = [plan_merge(own, kept, conflicts=conflicts, factor=factor) for own in rows]
    else:
        factor = keep_factor(kept, 1.0, LAMB)
        weights = balanced(rows, kept, share)
        plan = plan_merge(torch.cat(rows), kept, factor=factor, weights=torch.cat(weights))
        pairs = zip(rows, weights, strict=True)
        alone = [plan_merge(own, kept, factor=factor, weights=weight) for own, weight in pairs]
    return GroupPlan(group.names, [own.double() for own in rows], plan, alone)


def balanced(rows: Sequence[Tensor], C_reg: Tensor, share: float) -> list[Tensor]:
    """A weight for each target row (s_n,), share |C_reg|^2 / (n |C_n|^2): the n concepts weigh alike,
    whatever the number of their rows, and together `share` times what is kept.
    """
    kept = float(C_reg.double().square().sum()) / len(rows)
    return [
        own.new_full((len(own),), share * kept / float(own.square().sum()))
        for own in map(Tensor.double, rows)
    ]
