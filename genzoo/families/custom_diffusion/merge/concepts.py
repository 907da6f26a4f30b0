"""`merge_concepts`: files of taught concepts and a base model in, one merged concept and a report out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.files import write_folder
from genzoo.core.progress import doing
from genzoo.families.custom_diffusion.data.captions import chosen_captions
from genzoo.families.custom_diffusion.files.base_weights import (
    BaseWeights,
    base_name,
    base_place,
    fingerprint,
)
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.write_layouts import (
    OWN_FOLDER_FILE,
    concept_bytes,
    write_new_file,
)
from genzoo.families.custom_diffusion.merge.inputs import (
    Entry,
    Source,
    check_unchanged,
    fitted,
    read_all,
    with_names,
    with_phrases,
    with_strengths,
)
from genzoo.families.custom_diffusion.merge.place import ConceptTexts
from genzoo.families.custom_diffusion.merge.prompt_rows import PromptRows
from genzoo.families.custom_diffusion.merge.report import ConceptReport, MergeReport, near_verdict, verdict
from genzoo.families.custom_diffusion.merge.rows import (
    DEFAULT_SHARE,
    GroupPlan,
    check_form,
    plan_group,
    rows_of,
    with_rows,
)
from genzoo.families.custom_diffusion.merge.solve import Solved, solve_merge
from genzoo.families.custom_diffusion.merge.transformer_rows import TransformerRows
from genzoo.families.custom_diffusion.training.bases import is_transformer


@dataclass(frozen=True)
class MergedConcepts:
    """delta: the merged concept, ready for `apply_concept`.   path: where it was written, if it was."""

    delta: ConceptDelta
    report: MergeReport
    path: Path | None


def merge_concepts(
    concepts: Sequence[Source],
    *,
    base: str | Path,
    output: str | Path | None = None,
    phrases: Sequence[str | Sequence[str]] | None = None,
    strengths: Sequence[float] | None = None,
    captions: str | Path | Sequence[str] | None = None,
    num_captions: int | None = None,
    rename: bool = False,
    conflicts: str = "mean",
    include_bos: bool = False,
    include_padding: bool = False,
    form: str = "constraint",
    share: float = DEFAULT_SHARE,
    any_base: bool = False,
    dtype: torch.dtype = torch.float32,
) -> MergedConcepts:
    """Merge concepts of one base in closed form (Custom Diffusion, Section 3.2), in float64, on the CPU.

    concepts: files, folders or `ConceptDelta`s, in any layout that `read_concept` knows.   base: a folder in
    diffusers' layout, or a hub id; only its cross-attention, text encoders and tokenizers are read.
    output: a file that ends in .safetensors, or a new folder with the report beside the concept.
    phrases: what each concept is called in prompts, such as "<new1> cat"; several for a concept that was
    trained jointly. Left out, the files' own are used, and the bare tokens where they say nothing.
    strengths: how much of each concept's change to keep, 1 when left out.
    captions: to regularise with, a list or a file with one per line; built in when left out.
    include_bos, include_padding: as in `captions.regularisation_rows`.
    form: "constraint", the paper's, meets the phrases' rows exactly; "ridge" comes near them from their new
    words to the end of the padding, and holds on to captions with their padding and the first row, for bases
    whose text is narrow: see `rows.balanced`.   share: of a ridge, the targets' weight as a share of all that
    is kept.
    rename: give tokens that clash new names instead of refusing.   conflicts: as in `merge_weights`.
    Inputs are never written. Raises UsageError, WeightsError, DataError, NonFiniteError.
    """
    started = time.perf_counter()
    _check_output(output)
    check_form(form, share)
    painted_by_transformer = is_transformer(base)
    with doing("reading the concepts and the base"):
        entries = read_all(concepts)
        weights = BaseWeights(base)
        base_print = fingerprint(weights)
    entries = [fitted(entry, weights, base_print, any_base) for entry in entries]
    entries = with_strengths(entries, weights, strengths)
    entries, renamed = with_names(with_phrases(entries, phrases), rename)
    encoder: ConceptTexts = (TransformerRows if painted_by_transformer else PromptRows)(base, weights)
    _check_widths(encoder.widths, entries)
    for entry in entries:
        encoder.add_tokens(entry.delta.tokens)
    entries = [with_rows(entry, encoder, form) for entry in entries]
    texts = chosen_captions(captions, num_captions)
    with doing(f"encoding {len(texts)} captions"):
        C_reg, counts = encoder.kept(
            texts, include_bos=include_bos, include_padding=include_padding, form=form
        )
    groups = [
        plan_group(group, entries, C_reg, counts, form=form, share=share, conflicts=conflicts)
        for group in encoder.groups(weights.key_values)
    ]
    with doing(f"solving for {len(weights.key_values)} matrices"):
        solved = solve_merge(entries, weights, groups, dtype)
    delta = ConceptDelta(
        weights=solved.weights,
        tokens={token: rows for entry in entries for token, rows in entry.delta.tokens.items()},
        phrases=tuple(phrase for entry in entries for phrase in entry.delta.phrases),
        base_model=base_name(base),
        base_fingerprint=base_print,
        notes={"merged": [entry.label for entry in entries], **base_place(base)},
    )
    report = _report(entries, solved, groups, Path(base).name, base_print, renamed, form)
    report = replace(
        report,
        num_regularisation_rows=len(C_reg),
        num_captions=len(texts),
        form=form,
        share=share if form == "ridge" else None,
        seconds=time.perf_counter() - started,
    )
    check_unchanged(concepts, entries)
    return MergedConcepts(delta, report, _write(delta, report, output))


def _check_widths(widths: list[int], entries: Sequence[Entry]) -> None:
    for entry in entries:
        for token, rows in entry.delta.tokens.items():
            if [len(row) for row in rows] != widths:
                raise WeightsError(
                    f"{token} has embeddings of widths {[len(row) for row in rows]}; the base's text "
                    f"encoders are {widths} wide",
                    where=entry.label,
                    fix="use the base model that the concept was trained from",
                )


def _report(
    entries: Sequence[Entry],
    solved: Solved,
    groups: Sequence[GroupPlan],
    base_name: str,
    base_print: str,
    renamed: Mapping[str, str],
    form: str,
) -> MergeReport:
    owners = [index for index, entry in enumerate(entries) for _ in rows_of(entry)]
    plans = [group.plan for group in groups]
    pairs = sorted({(owners[a], owners[b]) for plan in plans for a, b in plan.clashes})
    labels = [" | ".join(entry.delta.phrases) for entry in entries]
    interference = (solved.moved / solved.needed[:, None].clamp_min(1e-300)).sqrt()
    concepts = []
    for i, entry in enumerate(entries):
        concept = ConceptReport(
            source=entry.label,
            sha256=entry.sha256,
            tokens=list(entry.delta.tokens),
            phrases=list(entry.delta.phrases),
            layout_notes=entry.notes,
            num_rows=len(rows_of(entry)),
            own_change=float(solved.own_change[i]),
            constraint_residual=solved.residual[i],
            lost_share=float((solved.missed[i] / solved.needed[i].clamp_min(1e-300)).sqrt()),
        )
        others = [(labels[j], float(interference[i, j])) for j in range(len(entries)) if j != i]
        clashing = [labels[b if a == i else a] for a, b in pairs if i in (a, b)]
        told = verdict(concept, others, clashing) if form == "constraint" else near_verdict(concept, others)
        concepts.append(replace(concept, verdict=told))
    return MergeReport(
        base=base_name,
        base_fingerprint=base_print,
        concepts=concepts,
        interference=interference.tolist(),
        clashes=[f"{labels[a]!r} and {labels[b]!r} ask for different values of one word" for a, b in pairs],
        renamed=dict(renamed),
        constraint_residual=max(solved.residual),
        objective=solved.objective,
        largest_change=solved.largest_change,
        condition=max(plan.condition for plan in plans),
        rank=min(plan.rank for plan in plans),
        width=plans[0].C.shape[1],
        row_condition=max(plan.row_condition for plan in plans),
        num_target_rows=max(len(plan.keep) for plan in plans),
        num_regularisation_rows=0,
        num_captions=0,
        num_matrices=len(solved.weights),
        method=", ".join(dict.fromkeys(plan.method for plan in plans)),
    )


def _write(delta: ConceptDelta, report: MergeReport, output: str | Path | None) -> Path | None:
    if output is None:
        return None
    told = replace(delta, notes={**delta.notes, "report": report.kept()})
    if Path(output).suffix == ".safetensors":
        return write_new_file(Path(output), concept_bytes(told))
    files: dict[str, bytes] = {
        OWN_FOLDER_FILE: concept_bytes(told),
        "report.json": (json.dumps(report.kept(), indent=2) + "\n").encode(),
        "report.txt": ("\n".join(report.lines()) + "\n").encode(),
    }
    return write_folder(Path(output), files)


def _check_output(output: str | Path | None) -> None:
    if output is not None and Path(output).exists():
        raise UsageError(f"{output} exists already", fix="name another output, or remove it")
