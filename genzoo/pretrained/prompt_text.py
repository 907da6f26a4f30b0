"""Prompts as people type them: weights in A1111's syntax, and cutting into chunks that a text encoder reads.

(word) x 1.1, ((word)) x 1.21, [word] / 1.1, (word:1.3) x 1.3; nested weights multiply; \\( \\) \\[ \\] \\\\
are plain characters; a bracket that stays open reaches to the end; BREAK begins a new chunk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from genzoo.core.errors import UsageError

ROUND, SQUARE = 1.1, 1 / 1.1
# when a chunk is full, the text after a comma among its last tokens moves to the next one with the rest
COMMA_REACH = 20
Weighted = tuple[str, float]
Token = tuple[int, float]

_PIECES = re.compile(
    r"(?P<escaped>\\[\\()\[\]])|(?P<open>[(\[])|:(?P<number>[+-]?[.\d]+)\)|(?P<close>[)\]])"
    r"|(?P<plain>[^\\()\[\]:]+|[:\\])"
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_SCHEDULE = re.compile(r"\[[^\[\]]*(?::\s*[\d.]+\s*|\|[^\[\]]*)\]")


@dataclass
class _Reading:
    """pieces: what was read, with weights.   brackets: of those that are open, the sign and the piece
    after.
    """

    pieces: list[list[Any]] = field(default_factory=list)
    brackets: list[tuple[str, int]] = field(default_factory=list)

    def multiply(self, start: int, weight: float) -> None:
        for piece in self.pieces[start:]:
            piece[1] *= weight

    def close(self, sign: str, weight: float) -> bool:
        """End the innermost bracket, where it is one of this sign."""
        opened = [index for index, (one, _) in enumerate(self.brackets) if one == sign]
        if not opened:
            return False
        self.multiply(self.brackets.pop(opened[-1])[1], weight)
        return True


def parse_weights(text: str) -> list[Weighted]:
    """Pieces of a prompt with their weights; BREAK is a piece of its own with the weight -1.

    Raises UsageError for what other programs mean by brackets and this one has not: schedules, alternatives,
    AND; and for numbers that are none.
    """
    _refuse_others(text)
    reading = _Reading()
    for match in _PIECES.finditer(text):
        if match["escaped"]:
            reading.pieces.append([match["escaped"][1], 1.0])
        elif match["open"]:
            reading.brackets.append((match["open"], len(reading.pieces)))
        elif match["number"] is not None:
            if not any(sign == "(" for sign, _ in reading.brackets):
                reading.pieces.append([match[0], 1.0])
            else:
                reading.close("(", _number(match["number"], text))
        elif match["close"]:
            sign, weight = ("(", ROUND) if match["close"] == ")" else ("[", SQUARE)
            if not reading.close(sign, weight):
                reading.pieces.append([match["close"], 1.0])
        else:
            _add_plain(reading, match["plain"])
    for sign, start in reversed(reading.brackets):
        reading.multiply(start, ROUND if sign == "(" else SQUARE)
    return _joined([("BREAK", -1.0) if text is None else (text, weight) for text, weight in reading.pieces])


def chunks_of(tokenizer: Any, text: str, max_length: int, *, weighted: bool = False) -> list[list[Token]]:
    """A text as chunks of at most max_length - 2 tokens with weights, without beginning and end; one at
    least.

    weighted: read the syntax above; otherwise every character is plain.
    """
    pieces = parse_weights(text) if weighted else [(text, 1.0)]
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    cutter = _Cutter(max_length - 2, comma)
    for piece, weight in pieces:
        if piece == "BREAK" and weight == -1:
            cutter.next_chunk()
            continue
        for token in tokenizer(piece, add_special_tokens=False, verbose=False).input_ids:
            cutter.add((token, weight))
    return cutter.finished()


class _Cutter:
    """Fills chunks one after the other. comma: the id of that token."""

    def __init__(self, size: int, comma: int | None) -> None:
        self.size, self.comma = size, comma
        self.done: list[list[Token]] = []
        self.chunk: list[Token] = []
        self.last_comma = -self.size

    def add(self, token: Token) -> None:
        full = len(self.chunk) == self.size
        if token[0] == self.comma and not full:
            self.last_comma = len(self.chunk)
        elif full and token[0] != self.comma and len(self.chunk) - self.last_comma <= COMMA_REACH:
            moved = self.chunk[self.last_comma + 1 :]
            del self.chunk[self.last_comma + 1 :]
            self.next_chunk()
            self.chunk = moved
        if len(self.chunk) == self.size:
            self.next_chunk()
        self.chunk.append(token)

    def next_chunk(self) -> None:
        self.done.append(self.chunk)
        self.chunk, self.last_comma = [], -self.size

    def finished(self) -> list[list[Token]]:
        if self.chunk or not self.done:
            self.next_chunk()
        return self.done


def _add_plain(reading: _Reading, text: str) -> None:
    parts = _BREAK.split(text)
    for number, part in enumerate(parts):
        if number:
            reading.pieces.append([None, 1.0])
        reading.pieces.append([part, 1.0])


def _number(text: str, prompt: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no weight", where=f"the prompt {prompt[:80]!r}", fix="such as (word:1.2)"
        ) from None


def _joined(pieces: Sequence[Weighted]) -> list[Weighted]:
    """Neighbours of one weight as one piece; a single empty piece for nothing."""
    found: list[Weighted] = []
    for text, weight in pieces or [("", 1.0)]:
        if found and found[-1][1] == weight and weight != -1:
            found[-1] = (found[-1][0] + text, weight)
        else:
            found.append((text, weight))
    return found


def _refuse_others(text: str) -> None:
    plain = re.sub(r"\\.", "", text)
    schedule = _SCHEDULE.search(plain)
    if schedule:
        raise UsageError(
            f"{schedule[0]!r} in a prompt is a schedule of other programs, which genzoo does not have",
            fix=r"plain words, or \[ and \] for brackets that mean nothing",
        )
    if re.search(r"\bAND\b", plain):
        raise UsageError(
            "AND in a prompt is the composition of other programs, which genzoo does not have",
            where=f"the prompt {text[:80]!r}",
            fix="and in small letters, or several prompts",
        )
