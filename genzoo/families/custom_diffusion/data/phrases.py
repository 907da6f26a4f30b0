"""From words to rows: which prompts stand for a concept, and which rows of their features enter the merge."""

from __future__ import annotations

from collections.abc import Sequence

PHOTO = "photo of a"
# BOS, then the three words of "photo of a"
AFTER_BOS, AFTER_PHOTO = 1, 4
RULES = ("genzoo", "diffusers", "compvis")


def target_prompts(phrase: str, *, rule: str = "genzoo") -> list[str]:
    """The two prompts whose features must meet the concept's values: the phrase, alone and in a template.

    rule: "diffusers" and "compvis" are the official scripts', which take any phrase with the letters "art" in
    it, a cart as well, for a style; "genzoo" looks for the words art, style and painting instead.
    """
    letters = "art" in phrase
    words = any(word in ("art", "style", "painting") for word in phrase.lower().split())
    if words if rule == "genzoo" else letters:
        return [phrase, f"painting in the style of {phrase}"]
    if rule == "compvis":
        return [phrase, f"a photo of {phrase}"]
    return [phrase, f"photo of a {phrase}"]


def first_row(prompt: str) -> int:
    """The first feature row that counts, up to EOS: BOS is left out, and a leading "photo of a" with it."""
    return AFTER_PHOTO if PHOTO in prompt[:15] else AFTER_BOS


def row_keys(prompt: str, ids: Sequence[int]) -> list[tuple[int, ...]]:
    """The rows that count, each named by the token ids up to it.

    A causal encoder gives equal rows to equal names, whatever follows.
    """
    return [tuple(ids[: end + 1]) for end in range(first_row(prompt), len(ids))]
