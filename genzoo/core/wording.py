"""Numbers with their nouns, for people."""

from __future__ import annotations


def counted(number: int, noun: str, many: str | None = None) -> str:
    """ "1 pair", "1,200 pairs".   many: the plural, where it is not the noun and an s."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"
