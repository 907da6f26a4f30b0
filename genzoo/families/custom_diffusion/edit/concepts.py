"""`edit_concepts`: edits and a base model in, a base model with another meaning of some words out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import NonFiniteError, UsageError, WeightsError
from genzoo.families.custom_diffusion.data.captions import chosen_captions, names_and_sentences
from genzoo.families.custom_diffusion.edit import measure
from genzoo.families.custom_diffusion.edit.debias import Classifier, debias_rounds
from genzoo.families.custom_diffusion.edit.pictures import Drawn, check_sampling, with_pictures
from genzoo.families.custom_diffusion.edit.place import Group, Kept, Texts
from genzoo.families.custom_diffusion.edit.report import EditsReport
from genzoo.families.custom_diffusion.edit.rows import TextRows, check_different, check_rows, expanded
from genzoo.families.custom_diffusion.edit.solve import keep_factor, plan_edit
from genzoo.families.custom_diffusion.edit.text_models import TransformerTexts, check_model
from genzoo.families.custom_diffusion.edit.verbs import RULES, Edit, Edits, read_edits
from genzoo.families.custom_diffusion.edit.write import check_output, write_edited
from genzoo.families.custom_diffusion.files.base_weights import (
    BaseWeights,
    base_name,
    base_place,
    fingerprint,
    part_of,
)
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.pretrained.prompts import load_prompt_encoder

NUM_CAPTIONS = 300
DEFAULT_LAMB = 0.5


@dataclass(frozen=True)
class EditedBase:
    """delta: the edited keys and values, ready for `apply_concept`.   path: what was written, if anything."""

    delta: ConceptDelta
    report: EditsReport
    path: Path | None


@dataclass(frozen=True)
class _Problem:
    """C, T: (s, d) rows and where W_0 sends them now, of all edits.   spans: each edit's own.   kept: rows
    that stay, (p, d). lift: (s, d), W = W_0 + W_0 (T - C)^T lift.   alone: each edit's own lift, (s_e, d).
    names: the projections that see these rows.
    """

    names: tuple[str, ...]
    C: Tensor
    T: Tensor
    spans: list[slice]
    attributes: dict[int, list[Tensor]]
    kept: Tensor
    lift: Tensor
    alone: list[Tensor]


def edit_concepts(
    edits: str | Path | Sequence[Mapping[str, Any]],
    *,
    base: str | Path,
    output: str | Path | None = None,
    form: str = "ridge",
    rows: str = "tail",
    lamb: float = DEFAULT_LAMB,
    share: float | None = 1.0,
    weight: float = 1.0,
    captions: str | Path | Sequence[str] | None = None,
    num_captions: int | None = None,
    expand: str | None = None,
    classifier: Classifier | None = None,
    rounds: int = 30,
    pictures: int = 0,
    others: Sequence[str] = (),
    dtype: torch.dtype | None = None,
) -> EditedBase:
    """Change what words mean to a base, in closed form and float64 (Unified Concept Editing). No safety
    measure: synonyms, translations, learnt words and pictures as prompts bring an erased concept back.

    edits: a JSON file or list, such as [{"edit": "redirect", "from": "grapes", "to": "red apple"}]; verbs in
    `verbs`.   base: a folder in diffusers' layout, or a hub id; never written.   output: a new folder, a base
    again, or a file that ends in .safetensors for the keys and values alone.   form: "ridge", or "constraint"
    that meets targets exactly.   rows: "tail", from the last word to the end of the padding, "last" or "all".
    share: the edited rows' weight as a share of all kept weight; None takes `weight` for each row, as the
    codes do.   captions: whose features stay, a file or list; when left out `num_captions` built-in ones,
    names and sentences in turn.
    expand: "object" or "art" edits the texts in five templates as well.   classifier, rounds: of debias.
    pictures: draw that many of each text to report how far those of `others`, or of the texts to keep, move
    along. dtype: of the result; the base's own when left out. Raises UsageError, DataError, WeightsError,
    NonFiniteError.
    """
    started = time.perf_counter()
    check_output(output, base)
    check_rows(rows)
    given = read_edits(edits)
    check_model(base)
    check_sampling(base, pictures=pictures, debias=any(edit.verb == "debias" for edit in given.edits))
    weights = BaseWeights(base)
    base_print = fingerprint(weights)
    texts = _texts_of(base, weights)
    used = (
        names_and_sentences(num_captions or NUM_CAPTIONS)
        if captions is None
        else chosen_captions(captions, num_captions)
    )
    kept = texts.kept(used, [edit.source for edit in given.edits], given.keep)
    problems = [
        _problem(given, texts, group, kept, form, rows, lamb, share, weight, expand)
        for group in texts.groups(weights.key_values)
    ]
    problems, log = _debiased(problems, given, weights, base, classifier, rounds)
    spans = problems[0].spans
    edited, solved, largest = _edited(weights, problems, dtype)
    watched = [*others, *given.keep]
    if pictures and not watched:
        raise UsageError("pictures of which other texts?", fix="others, or edits that keep a text")
    table = measure.interference(spans, solved)
    found = measure.reports([edit.label for edit in given.edits], spans, solved, kept)
    if pictures:
        drawn = Drawn(base, pictures)
        found = with_pictures(found, given.edits, drawn=drawn, weights=edited, others=watched)
    report = EditsReport(
        base=base_name(base),
        base_fingerprint=base_print,
        form=form,
        rows=rows,
        lamb=lamb,
        edits=measure.with_verdicts(found, table),
        interference=table,
        notes=[*_notes(given, kept), *texts.notes()],
        largest_change=largest,
        num_matrices=len(edited),
        num_kept_rows=len(kept.rows),
        num_captions=len(kept.captions),
        width=weights.width,
        seconds=time.perf_counter() - started,
        rounds=log,
    )
    delta = ConceptDelta(
        weights=edited,
        phrases=tuple(edit.source for edit in given.edits),
        base_model=base_name(base),
        base_fingerprint=base_print,
        notes={"edits": [dataclasses.asdict(edit) for edit in given.edits], **base_place(base)},
    )
    if fingerprint(weights) != base_print:
        raise WeightsError("the base changed on the disk during the edit", where=str(base), fix="edit again")
    return EditedBase(delta, report, write_edited(delta, report, base, output))


def _texts_of(base: str | Path, weights: BaseWeights) -> Texts:
    if part_of(base) == "transformer":
        return TransformerTexts(base, weights.files)
    texts = TextRows(load_prompt_encoder(base))
    if sum(texts.encoder.widths) != weights.width:
        raise WeightsError(
            f"the base's text encoders are {texts.encoder.widths} wide, its cross-attention reads "
            f"{weights.width}",
            where=str(base),
        )
    return texts


def _problem(
    given: Edits,
    texts: Texts,
    group: Group,
    kept: Kept,
    form: str,
    rows: str,
    lamb: float,
    share: float | None,
    weight: float,
    expand: str | None,
) -> _Problem:
    pieces, targets, attributes, sizes, edit_weights = [], [], {}, [], []
    for number, edit in enumerate(given.edits):
        sources, goals, others = _rows_of(edit, texts, group, rows, expand)
        pieces.append(sources)
        targets.append(goals)
        sizes.append(len(sources))
        edit_weights += [edit.weight] * len(sources)
        if edit.verb == "debias":
            attributes[number] = others
    C, T, stays = torch.cat(pieces), torch.cat(targets), group(kept.rows)
    factor = keep_factor(stays, kept.weights, lamb)
    a = torch.tensor(edit_weights, dtype=torch.float64) * _row_weight(share, weight, kept, len(C))
    ends = torch.tensor(sizes).cumsum(0).tolist()
    spans = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    plan = plan_edit(C, factor, weights=a, form=form)
    alone = [plan_edit(C[own], factor, weights=a[own], form=form) for own in spans]
    return _Problem(
        names=group.names,
        C=C,
        T=T,
        spans=spans,
        attributes=attributes,
        kept=stays,
        lift=plan.keep.T @ plan.lift,
        alone=[one.keep.T @ one.lift for one in alone],
    )


def _debiased(
    problems: list[_Problem],
    given: Edits,
    weights: BaseWeights,
    base: str | Path,
    classifier: Classifier | None,
    rounds: int,
) -> tuple[list[_Problem], list[dict[str, Any]]]:
    """The problems with the targets of debias moved, and what each round found. All bases that are sampled
    here have one group of projections.
    """
    problem = problems[0]
    if not problem.attributes:
        return problems, []
    T, log = debias_rounds(
        given.edits,
        problem.attributes,
        problem.T,
        problem.spans,
        base=base,
        weights_of=lambda T: _edited(weights, [dataclasses.replace(problem, T=T)], None)[0],
        classifier=classifier,
        rounds=rounds,
    )
    return [dataclasses.replace(problem, T=T)], log


def _row_weight(share: float | None, weight: float, kept: Kept, num_rows: int) -> float:
    given = weight if share is None else share
    if not given > 0 or given == float("inf"):
        raise UsageError(f"an edit cannot have the weight {given}", fix="share or weight above 0, such as 1")
    return float(weight) if share is None else share * float(kept.weights.sum()) / num_rows


def _rows_of(
    edit: Edit, texts: Texts, group: Group, which: str, expand: str | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Rows of the source, where W_0 sends them, and of debias the rows of its attributes; (s, d) each."""
    sources, goals = [], []
    others: list[list[Tensor]] = [[] for _ in edit.shares]
    names = list(edit.shares) if edit.verb == "debias" else [] if edit.target is None else [edit.target]
    for forms in zip(expanded(edit.source, expand), *(expanded(name, expand) for name in names), strict=True):
        c, *rest = map(group, texts.paired(forms, which))
        sources.append(c)
        if edit.verb == "debias":
            for rows, found in zip(others, rest, strict=True):
                rows.append(found)
            goals.append(c)
            continue
        if rest:
            check_different(c, rest[0], (edit.source, edit.target or ""))
        goals.append(RULES[edit.verb](c, rest[0] if rest else c, edit.strength))
    return torch.cat(sources), torch.cat(goals), [torch.cat(rows) for rows in others]


def _edited(
    weights: BaseWeights, problems: Sequence[_Problem], dtype: torch.dtype | None
) -> tuple[dict[str, Tensor], list[measure.Solved], float]:
    """The projections, what was solved for each group, and the largest relative change of one."""
    edited, solved, largest = {}, [], 0.0
    for problem in problems:
        difference, square = problem.T - problem.C, problem.lift @ problem.lift.T
        gram = torch.zeros(len(problem.C), len(problem.C), dtype=torch.float64)
        for name in problem.names:
            W_0 = weights[name]
            E = W_0.double() @ difference.T
            one = E.T @ E
            change = float((one * square).sum().clamp_min(0).sqrt() / W_0.double().norm())
            W = torch.addmm(W_0.double(), E, problem.lift).to(dtype or W_0.dtype)
            if not bool(torch.isfinite(W).all()):
                raise NonFiniteError(
                    f"{name} became NaN or infinite", fix="a smaller strength, or another dtype"
                )
            edited[name], gram, largest = W, gram + one, max(largest, change)
        solved.append(measure.Solved(problem.C, problem.kept, problem.lift, problem.alone, gram))
    return {name: edited[name] for name in weights.key_values}, solved, largest


def _notes(given: Edits, kept: Kept) -> list[str]:
    sources = {edit.source.lower().strip() for edit in given.edits}
    notes = [
        f"{edit.label}: {edit.target!r} is edited too; the target is what it meant in the base"
        for edit in given.edits
        if edit.target is not None and edit.target.lower().strip() in sources and edit.verb != "scale"
    ]
    if kept.left_out:
        notes.append(f"{len(kept.left_out)} captions name what is edited and were not kept")
    return notes
