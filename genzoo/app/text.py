"""Strings of users and files on their way to the page: as text that shows all it holds."""

from __future__ import annotations

import html
import unicodedata

# they turn the reading direction, so that a name looks like another one: never shown raw
DIRECTION = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
HIDDEN = ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")
LONGEST = 300


def plain(text: object, *, longest: int = LONGEST, lines: bool = False) -> str:
    """A text with control characters and marks of direction as escapes, cut at `longest` letters.

    lines: keep line breaks, for texts of several lines.
    """
    said = str(text)
    cut = said if len(said) <= longest else f"{said[: longest - 1]}…"
    return "".join(letter if lines and letter == "\n" else _shown(letter) for letter in cut)


def toast(text: object) -> str:
    """A text for gradio's short messages, which would render HTML."""
    return html.escape(plain(text, longest=600, lines=True))


def _shown(letter: str) -> str:
    if ord(letter) in DIRECTION or unicodedata.category(letter) in HIDDEN:
        return letter.encode("unicode_escape").decode("ascii")
    return letter
