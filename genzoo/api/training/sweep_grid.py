"""What `genzoo sweep` tries: settings with several values, and every combination of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from genzoo.core.errors import UsageError

SEED = "train.seed"
MOST = 1000
_SAFE = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Trial:
    """One combination. varied: its values of the settings that the sweep varies, as they were typed.

    name: of the group, where it has one of its own.
    """

    varied: tuple[tuple[str, str], ...]
    fixed: tuple[str, ...]
    name: str = ""

    @property
    def overrides(self) -> list[str]:
        """What to put behind the recipe."""
        return [*self.fixed, *(f"{key}={value}" for key, value in self.varied)]

    @property
    def group(self) -> str:
        """The combination without its seed: trials of one group tell the spread."""
        return self.name or _label([pair for pair in self.varied if pair[0] != SEED]) or "as it is"

    @property
    def folder(self) -> str:
        """A file name for it, which says the values where file names can."""
        parts = [f"{name}={_safe(value)}" for name, value in _short(self.varied)]
        return "_".join(parts)[:120]


def _label(varied: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{name}={value}" for name, value in _short(varied))


def _short(varied: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Keys by their last word where that tells them apart."""
    last = [key.rpartition(".")[2] for key, _ in varied]
    return [(word if last.count(word) == 1 else key, v) for word, (key, v) in zip(last, varied, strict=True)]


def _safe(value: str) -> str:
    return value if _SAFE.fullmatch(value) else sha256(value.encode()).hexdigest()[:8]


def trials(overrides: Sequence[str]) -> list[Trial]:
    """Every combination of the values that overrides such as "optim.lr=1e-4,3e-4" list, the first slowest.

    A comma inside brackets, braces or quotes belongs to its value. Raises UsageError when nothing varies, for
    a setting given twice, and for more than 1,000 combinations.
    """
    pairs = [text.partition("=")[::2] for text in overrides]
    keys = [key for key, _ in pairs]
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise UsageError(f"{twice[0]} is given twice", fix=f"list its values: {twice[0]}=A,B")
    listed = [(key, values_of(text)) for key, text in pairs]
    varied = [[(key, value) for value in values] for key, values in listed if len(values) > 1]
    fixed = tuple(f"{key}={values[0]}" for key, values in listed if len(values) == 1)
    if not varied:
        raise UsageError("nothing varies", fix="list values: optim.lr=1e-4,3e-4 train.seed=0,1,2")
    combined = [
        Trial(combination, fixed) for combination in itertools.islice(itertools.product(*varied), MOST + 1)
    ]
    if len(combined) > MOST:
        raise UsageError(f"these are more than {MOST:,} combinations", fix="vary fewer settings")
    return combined


def values_of(text: str) -> list[str]:
    """The values between commas that stand outside brackets and quotes."""
    values, depth, quote, start = [], 0, "", 0
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            values.append(text[start:index])
            start = index + 1
    values.append(text[start:])
    cleaned = [value.strip() for value in values]
    if len(cleaned) > 1 and (not all(cleaned) or len(set(cleaned)) < len(cleaned)):
        raise UsageError(f"the values {text!r} are empty or repeated", fix="list each value once: A,B,C")
    return cleaned
