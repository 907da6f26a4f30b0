"""Docstrings: the words about each argument, and the whole as reStructuredText.

Ours say `name: meaning.   other, third: meaning.` in running paragraphs; an item begins at a line's start
or after two spaces or more.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ITEM = re.compile(r"(?:^|(?<=\n)|(?<=  )|(?<=\. )) *([A-Za-z_][\w*]*(?:,\s+[A-Za-z_][\w*]*)*):\s+")
REST = re.compile(r"(?<=[.;] )(?=(?:Returns|Raises|Batches|None instead)\b)")  # no part of the last item


class Item(NamedTuple):
    """One meaning, and the names it is of."""

    names: tuple[str, ...]
    meaning: str


class Parts(NamedTuple):
    """A paragraph: what stands before its first item, the items, and what stands after them."""

    lead: str
    items: list[Item]
    rest: str


def words(text: str | None, names: Iterable[str]) -> dict[str, str]:
    """What a docstring says about each of these names; a name it does not explain is left out."""
    known, found = set(names), {}
    for block in _blocks(text):
        for item in items(block, known).items:
            found |= {name: item.meaning for name in item.names if name in known}
    return found


def items(block: str, known: set[str] | None = None) -> Parts:
    """A paragraph in its parts.   known: names that may begin an item; any may when left out."""
    starts = [
        match
        for match in ITEM.finditer(block)
        if known is None or known & {name.strip("*") for name in re.split(r",\s+", match[1])}
    ]
    if not starts:
        return Parts(_joined(block), [], "")
    ends = [*(match.start() for match in starts[1:]), len(block)]
    meanings = [_joined(block[match.end() : end]) for match, end in zip(starts, ends, strict=True)]
    last, *rest = REST.split(meanings[-1], maxsplit=1)
    meanings[-1] = last.strip()
    found = [
        Item(tuple(re.split(r",\s+", m[1])), meaning) for m, meaning in zip(starts, meanings, strict=True)
    ]
    return Parts(_joined(block[: starts[0].start()]), found, " ".join(rest))


def restructured(text: str) -> str:
    """A docstring as reStructuredText: items as a list, code in double backticks, nothing else marked up."""
    return "\n\n".join(_restructured(block) for block in _blocks(text))


def _restructured(block: str) -> str:
    if block.startswith((">>> ", "    ")):
        return "::\n\n" + "\n".join(f"    {line}" for line in block.splitlines())
    if re.match(r"[-*] ", block):
        return "\n".join(_plain(line) for line in block.splitlines())
    lead, found, rest = items(block)
    listed = [f"- ``{', '.join(item.names)}``: {_plain(item.meaning)}" for item in found]
    return "\n\n".join(part for part in (_plain(lead), "\n".join(listed), _plain(rest)) if part)


def _plain(text: str) -> str:
    """Words whose signs mean nothing to docutils; what stands in backticks becomes code."""
    parts = re.split(r"`+([^`]+)`+", text)
    return "".join(
        f"``{part}``" if i % 2 else re.sub(r"([\\*|_])", r"\\\1", part) for i, part in enumerate(parts)
    )


def _blocks(text: str | None) -> Iterator[str]:
    """The paragraphs of a docstring; an indented one, which is code, keeps its indentation."""
    cleaned = inspect.cleandoc(text or "")
    yield from (block.rstrip() for block in re.split(r"\n\s*\n", cleaned) if block.strip())


def _joined(text: str) -> str:
    return " ".join(text.split())
