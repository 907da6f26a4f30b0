"""The order of names in which numbers count as numbers: "2" before "10"."""

from __future__ import annotations

import re
from collections.abc import Sequence

DIGITS = "0123456789"
_NUMBER = re.compile("([0-9]+)")
_BEGINNING = re.compile("([^0-9]*)([0-9]*)" * 3)
MANY = 100_000  # runs of digits that are remembered while names are sorted


def naturally_sorted(names: Sequence[str]) -> list[str]:
    """`sorted(names, key=natural)` by cheaper keys: folders of a million pictures are sorted."""
    numbers = _numbers_alone(names)
    if numbers is None:
        beginnings = list(map(_beginning, names))
        if len(set(beginnings)) == len(names):  # what follows them decides nothing
            return [name for _, name in sorted(zip(beginnings, names, strict=True))]
        return [name for _, name in sorted(zip(map(_text_key, names), names, strict=True))]
    if len(set(map(len, numbers))) == 1:  # with leading zeros they are in order as text
        return sorted(names)
    return [name for _, name in sorted(zip(map(int, numbers), names, strict=True))]


def _numbers_alone(names: Sequence[str]) -> list[str] | None:
    """The numbers of names that differ in one number only, such as img_1.jpg and img_20.jpg; else None."""
    if not names:
        return None
    first, last = min(names), max(names)  # what these two share, all share
    pairs = enumerate(zip(first, last, strict=False))
    shared = next((place for place, (one, other) in pairs if one != other), None)
    prefix = first[:shared].rstrip(DIGITS)
    start = len(prefix)
    suffix = names[0][start:].lstrip(DIGITS)
    end = -len(suffix) or None
    texts = [name[start:end] for name in names]
    alike = all([name.endswith(suffix) for name in names])  # noqa: C419 - a list is faster than a generator
    return texts if alike and "".join(texts).isascii() and all(map(str.isdigit, texts)) else None


def _beginning(name: str) -> tuple[str, int, str, int, str, int]:
    """A name's first three texts and numbers, -1 where it has fewer; sorts as `natural` as far as it goes."""
    found = _BEGINNING.match(name.casefold())
    assert found is not None  # it matches anything
    one, first, two, second, three, third = found.groups()
    return one, int(first or -1), two, int(second or -1), three, int(third or -1)


def _text_key(name: str) -> str:
    """Sorts as `natural` does: a number is its length and its digits, behind a byte before all others."""
    parts = _NUMBER.split(name.casefold())  # text and numbers in turn
    parts[1::2] = map(_AS_TEXT.__getitem__, parts[1::2])
    return "".join(parts)


class _NumbersAsText(dict[str, str]):
    """What stands for a run of digits in a key; names of random digits have few that differ."""

    def __missing__(self, digits: str) -> str:
        if len(self) > MANY:
            self.clear()
        short = digits.lstrip("0") or "0"
        self[digits] = found = f"\0{len(short):03}{short}"
        return found


_AS_TEXT = _NumbersAsText()


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that reads runs of the digits 0 to 9 as numbers; the name itself decides between equals."""
    return _numbers_in(name.casefold()), name


def class_order(name: str) -> tuple[list[str | int], str]:
    """`natural` with upper case before lower, as Python sorts text: what a label means depends on it.

    Equal to `sorted(os.listdir(root))`, by which others number their classes (HammerThrow before Hammering
    in UCF-101), but for numbers in the names: "2" stands before "10".
    """
    return _numbers_in(name), name


def _numbers_in(name: str) -> list[str | int]:
    parts = re.split(r"([0-9]+)", name)  # text and numbers in turn, beginning with text
    # Python refuses to read numbers of thousands of digits, but a file name has at most a few hundred
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
