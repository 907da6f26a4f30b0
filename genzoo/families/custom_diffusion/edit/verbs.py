"""What an edit is: a verb, a source text, and where its rows are sent. Files of edits are read here.

Every verb sends a row c to W_0 t, where t is built of text rows alone; g is the target text's row, s the
strength: redirect, erase t = g;  soften t = (1 - s) c + s g;  add t = c + s g;  strengthen t = c + s (c - g);
scale t = s c; debias t = c + sum q_i a_i over the rows a_i of attributes (`debias`). The codes have redirect,
add and debias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.data.text_files import read_json

Rule = Callable[[Tensor, Tensor, float], Tensor]
RULES: dict[str, Rule] = {
    "redirect": lambda c, g, s: g,
    "erase": lambda c, g, s: g,
    "soften": lambda c, g, s: (1 - s) * c + s * g,
    "add": lambda c, g, s: c + s * g,
    "strengthen": lambda c, g, s: c + s * (c - g),
    "scale": lambda c, g, s: s * c,
}
VERBS = (*RULES, "debias", "keep")
# verbs that need no target: an anchor of nothing, or the source itself
WITHOUT_TARGET = {"erase": "", "strengthen": "", "scale": None}
KEYS = {"edit", "from", "to", "strength", "weight"}


@dataclass(frozen=True)
class Edit:
    """source, target: texts.   strength: s above.   weight: beside the other edits.   shares: of debias, the
    wanted share of each attribute, in place of a target.
    """

    verb: str
    source: str
    target: str | None = None
    strength: float = 1.0
    weight: float = 1.0
    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise UsageError(
                f"the edit {self.verb!r} has an empty text to change",
                why="its rows stand for every prompt's beginning",
                fix='name a word: "from"',
            )
        for name, number in {"strength": self.strength, "weight": self.weight}.items():
            if not math.isfinite(number):
                raise UsageError(f"{name} of the edit of {self.source!r} is {number}", fix="a finite number")
        if self.weight <= 0:
            raise UsageError(f"weight of the edit of {self.source!r} is {self.weight}", fix="above 0")
        _check_strength(self)
        if self.verb == "debias":
            _check_shares(self)

    @property
    def label(self) -> str:
        """For a report."""
        if self.verb == "debias":
            return f"debias {self.source!r}"
        target = "" if self.target is None else f" -> {self.target!r}"
        strength = "" if self.strength == 1 else f" ({self.strength:g})"
        return f"{self.verb} {self.source!r}{target}{strength}"

    def goal(self) -> tuple[Any, ...]:
        """Where the source is sent, to compare edits by."""
        return (self.verb, (self.target or "").strip().lower(), self.strength, tuple(self.shares.items()))


@dataclass(frozen=True)
class Edits:
    """edits: those that change something.   keep: texts that shall not change."""

    edits: tuple[Edit, ...]
    keep: tuple[str, ...] = ()


def read_edits(source: str | Path | Sequence[Mapping[str, Any]]) -> Edits:
    """Of a JSON file, or of the same list in memory. Raises DataError, UsageError."""
    entries = read_json(source, "the file of edits") if isinstance(source, (str, Path)) else list(source)
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise UsageError(
            "edits are a list", fix='[{"edit": "redirect", "from": "grapes", "to": "red apple"}]'
        )
    edits, keep = [], []
    for entry in entries:
        if _verb(entry) == "keep":
            keep += _kept(entry)
        else:
            edits.append(_edit(entry))
    if not edits:
        raise UsageError(
            "there is nothing to edit", fix='an entry such as {"edit": "erase", "from": "grapes"}'
        )
    _check_contradictions(edits, keep)
    return Edits(tuple(edits), tuple(keep))


def _verb(entry: Mapping[str, Any]) -> str:
    verb = entry.get("edit")
    if verb not in VERBS:
        near = did_you_mean(verb, VERBS) if isinstance(verb, str) else None
        raise UsageError(f"there is no edit {verb!r}", fix=near or f"one of {', '.join(VERBS)}")
    return str(verb)


def _kept(entry: Mapping[str, Any]) -> list[str]:
    text = entry.get("text")
    texts = [text] if isinstance(text, str) else text
    if (
        set(entry) - {"edit", "text"}
        or not isinstance(texts, list)
        or not all(isinstance(one, str) for one in texts)
    ):
        raise UsageError(f"cannot read {dict(entry)}", fix='{"edit": "keep", "text": "bicycle"}, or a list')
    return list(texts)


def _edit(entry: Mapping[str, Any]) -> Edit:
    verb, unknown = _verb(entry), sorted(set(entry) - KEYS)
    if unknown:
        raise UsageError(
            f"an edit has no {unknown[0]!r}", fix=did_you_mean(unknown[0], KEYS) or ", ".join(sorted(KEYS))
        )
    source, target = entry.get("from"), entry.get("to", WITHOUT_TARGET.get(verb))
    numbers = {name: entry.get(name, 1.0) for name in ("strength", "weight")}
    for name, number in numbers.items():
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise UsageError(f"{name} is {number!r}", where=f"edit {verb}", fix="a number")
    if not isinstance(source, str):
        raise UsageError(f"the edit {verb!r} does not say what it changes", fix='"from": "grapes"')
    strength, weight = (float(number) for number in numbers.values())
    if verb == "debias":
        return Edit(verb, source, None, strength, weight, _shares(target))
    if not isinstance(target, str) and not (verb == "scale" and target is None):
        raise UsageError(f"the edit {verb!r} of {source!r} has no target", fix='"to": "red apple"')
    return Edit(verb, source, target, strength, weight)


def _shares(target: Any) -> dict[str, float]:
    if not isinstance(target, Mapping) or not all(
        isinstance(share, (int, float)) and not isinstance(share, bool) for share in target.values()
    ):
        raise UsageError("debias names a share for each attribute", fix='"to": {"male": 0.5, "female": 0.5}')
    return {str(name): float(share) for name, share in target.items()}


def _check_strength(edit: Edit) -> None:
    verb, strength = edit.verb, edit.strength
    if verb == "soften" and not 0 < strength <= 1:
        raise UsageError(f"strength {strength:g} of soften is outside (0, 1]", fix="1 redirects altogether")
    if verb in ("redirect", "erase") and strength != 1:
        raise UsageError(f"{verb} has no strength", fix="soften goes a part of the way")
    if verb in ("add", "strengthen") and strength == 0:
        raise UsageError(f"strength 0 of {verb} changes nothing", fix="such as 0.5")
    if verb == "scale" and strength == 1:
        raise UsageError("scale by 1 changes nothing", fix="a strength, such as 0.5")
    if verb == "debias" and not 0 < strength <= 1:
        raise UsageError(f"strength {strength:g} of debias is outside (0, 1]", fix="1 is the official step")


def _check_shares(edit: Edit) -> None:
    shares = edit.shares
    if len(shares) < 2:
        raise UsageError(f"debias of {edit.source!r} needs two attributes", fix='such as "male" and "female"')
    if any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise UsageError(
            f"the shares of {edit.source!r} sum to {sum(shares.values()):g}",
            fix="shares in [0, 1] that sum to 1",
        )


def _check_contradictions(edits: Sequence[Edit], keep: Sequence[str]) -> None:
    seen: dict[str, Edit] = {}
    for edit in edits:
        key = " ".join(edit.source.lower().split())
        other = seen.setdefault(key, edit)
        if other is not edit:
            if other.goal() == edit.goal():
                raise UsageError(f"the edit of {edit.source!r} is given twice", fix="give it once")
            raise UsageError(
                f"two edits send {edit.source!r} to different places ({other.target!r}, {edit.target!r})",
                fix="drop one",
            )
    for text in keep:
        if " ".join(text.lower().split()) in seen:
            raise UsageError(f"{text!r} is edited and kept", fix="drop one of the two")
