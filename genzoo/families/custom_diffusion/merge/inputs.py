"""The concepts that go into a merge: read, checked against the base, named and phrased."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from genzoo.core.checkpoint_manifest import file_digest
from genzoo.core.errors import DataError, NonFiniteError, UsageError, WeightsError
from genzoo.families.custom_diffusion.files.apply import check_base, check_fits
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.pretrained.hub_runs import here

Source = str | Path | ConceptDelta


@dataclass(frozen=True)
class Entry:
    """One concept on its way through the merge.   rows: (s_n, d) target rows, each distinct one once."""

    label: str
    delta: ConceptDelta
    sha256: str | None
    notes: list[str]
    rows: Tensor | None = None


def read_all(concepts: Sequence[Source]) -> list[Entry]:
    if isinstance(concepts, (str, Path)) or not concepts:
        raise UsageError("there is nothing to merge", fix="pass a list of concept files")
    entries = []
    for source, label in zip(concepts, labels_of(concepts), strict=True):
        if isinstance(source, ConceptDelta):
            entries.append(Entry(label, source, None, []))
        else:
            entries.append(Entry(label, read_concept(source), hash_files(Path(source)), []))
    repeated = [k for k, n in Counter(entry.sha256 for entry in entries if entry.sha256).items() if n > 1]
    if repeated:
        names = [entry.label for entry in entries if entry.sha256 == repeated[0]]
        raise UsageError(f"{' and '.join(names)} are the same concept", fix="give each concept once")
    return entries


def labels_of(concepts: Sequence[Source]) -> list[str]:
    """What each is called: its file's name, with as many folders before it as tell it from the others."""
    paths = [() if isinstance(source, ConceptDelta) else Path(source).parts for source in concepts]
    found = []
    for number, own in enumerate(paths, 1):
        others = [parts for index, parts in enumerate(paths, 1) if index != number and parts != own]
        length = next(
            (n for n in range(1, len(own)) if all(own[-n:] != parts[-n:] for parts in others)), len(own)
        )
        found.append("/".join(own[-length:]) if own else f"concept {number}")
    return found


def check_concept(delta: ConceptDelta, base: BaseWeights, where: str, base_print: str | None) -> None:
    """Whether a concept has the shapes of the base and, given the base's fingerprint, belongs to it."""
    try:
        check_fits(delta, {name: base.shape(name) for name in base})
        if base_print is not None:
            check_base(delta, base, base_print)
    except WeightsError as error:
        raise WeightsError(error.what, where=where, why=error.why, fix=error.fix) from error


def fitted(entry: Entry, base: BaseWeights, base_print: str, any_base: bool) -> Entry:
    """The concept with full matrices, after checking that it belongs to the base and changes something."""
    delta, where = entry.delta, entry.label
    check_concept(delta, base, where, None if any_base else base_print)
    absent = [name for name in base.key_values if name not in delta.names]
    if absent:
        raise WeightsError(f"the concept has no {absent[0]}", where=where, why=f"{len(absent)} are absent")
    changed = 0.0
    for name in base.key_values:
        W_0 = base[name].float()
        change = (delta.full_weight(name, W_0).float() - W_0).abs().max()
        if not bool(torch.isfinite(change)):
            raise NonFiniteError(f"{name} of {where} has NaN or infinite entries", fix="train it again")
        # half-precision copies of a base differ by rounding, which teaches nothing
        changed = max(changed, float(change / W_0.abs().max()))
    if changed < 1e-6:
        raise WeightsError(
            "the concept changes nothing: its keys and values equal the base's",
            where=where,
            fix="train it, or leave it out",
        )
    notes = [] if delta.base_fingerprint else ["the file does not say which base it was trained from"]
    if delta.freeze_mode == "crossattn":
        notes.append("its queries and outputs were trained too; the merge keeps the base's")
    return replace(entry, notes=entry.notes + notes)


def with_strengths(entries: list[Entry], base: BaseWeights, strengths: Sequence[float] | None) -> list[Entry]:
    """Each concept with W_0 + s (W - W_0) in place of its weights."""
    if strengths is None:
        return entries
    if len(strengths) != len(entries):
        raise UsageError(
            f"{len(strengths)} strengths for {len(entries)} concepts", fix="give one per concept"
        )
    found = []
    for entry, strength in zip(entries, strengths, strict=True):
        if strength == 0 or not math.isfinite(strength):
            raise UsageError(f"{strength} is no strength", where=entry.label, fix="such as 0.8")
        if strength == 1:
            found.append(entry)
            continue
        weights = {}
        for name in base.key_values:
            W_0 = base[name].float()
            weights[name] = W_0 + strength * (entry.delta.full_weight(name, W_0).float() - W_0)
        others = {name: value for name, value in entry.delta.weights.items() if name not in weights}
        delta = replace(entry.delta, weights={**weights, **others}, factors={})
        found.append(replace(entry, delta=delta, notes=[*entry.notes, f"at strength {strength:g}"]))
    return found


def with_phrases(entries: list[Entry], phrases: Sequence[str | Sequence[str]] | None) -> list[Entry]:
    """Phrases from the caller, the file, or the tokens themselves; each token has to occur in one."""
    if phrases is not None and len(phrases) != len(entries):
        raise UsageError(f"{len(phrases)} phrases for {len(entries)} concepts", fix="give one per concept")
    found = []
    for index, entry in enumerate(entries):
        delta, notes = entry.delta, list(entry.notes)
        if phrases is not None:
            given = phrases[index]
            delta = replace(delta, phrases=(given,) if isinstance(given, str) else tuple(given))
        elif not delta.phrases:
            delta = replace(delta, phrases=tuple(delta.tokens))
            notes.append(
                "no phrase is known: only the tokens themselves are pinned, not the words after them"
            )
        if not delta.phrases or not all(phrase.strip() for phrase in delta.phrases):
            raise UsageError(
                "a concept without tokens needs a phrase",
                where=entry.label,
                fix='such as --phrase "moongate"',
            )
        words = {word.lower() for phrase in delta.phrases for word in phrase.split()}
        unused = [token for token in delta.tokens if token.lower() not in words]
        if unused:
            raise UsageError(
                f"no phrase of the concept has its token {unused[0]}",
                where=entry.label,
                why=f"the phrases are {', '.join(map(repr, delta.phrases))}",
                fix=f'such as "{unused[0]} cat"; several phrases for a concept with several tokens',
            )
        found.append(replace(entry, delta=delta, notes=notes))
    return found


def with_names(entries: list[Entry], rename: bool) -> tuple[list[Entry], dict[str, str]]:
    """Tokens are written in lower case by the tokenizer, so they have to differ there."""
    taken: dict[str, str] = {}
    renamed: dict[str, str] = {}
    found = []
    for entry in entries:
        changes = {}
        for token in entry.delta.tokens:
            if token.lower() in taken:
                if not rename:
                    raise UsageError(
                        f"{entry.label} and {taken[token.lower()]} both teach the word {token}",
                        fix="--rename (rename=True) gives the later one a new name",
                    )
                changes[token] = _free_name({*taken, *map(str.lower, entry.delta.tokens)})
                renamed[f"{entry.label}: {token}"] = changes[token]
            taken[changes.get(token, token).lower()] = entry.label
        found.append(replace(entry, delta=entry.delta.renamed(changes)))
    return found, renamed


def _free_name(taken: set[str]) -> str:
    return next(name for number in range(1, 10**6) if (name := f"<new{number}>") not in taken)


def check_unchanged(concepts: Sequence[Source], entries: Sequence[Entry]) -> None:
    for source, entry in zip(concepts, entries, strict=True):
        if entry.sha256 and not isinstance(source, ConceptDelta) and hash_files(Path(source)) != entry.sha256:
            raise DataError(f"{entry.label} changed on the disk during the merge", fix="merge again")


def hash_files(path: Path) -> str:
    """sha256 of a file; of a folder, over the names and hashes of its files."""
    path = here(path)
    if path.is_file():
        return file_digest(path)
    listed = [f"{file.name} {file_digest(file)}\n" for file in sorted(path.iterdir()) if file.is_file()]
    return hashlib.sha256("".join(listed).encode()).hexdigest()
