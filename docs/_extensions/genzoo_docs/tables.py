"""Markdown tables whose cells may hold anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; empty text where there are no rows."""
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines])


def cell(text: str) -> str:
    """Text as one cell: bars and line breaks would end it, angle brackets would be HTML."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", r"\<")


def code(text: str) -> str:
    """Text as code inside a cell: there only bars are escaped."""
    return f"`{text}`" if text else ""


def code_cell(text: str) -> str:
    """As `code`, for a cell that is put into a row as it is."""
    return code(text.replace("|", r"\|"))
