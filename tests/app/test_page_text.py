"""Strings of others are shown as text that holds no surprise."""

from __future__ import annotations

import pytest

from genzoo.app.text import plain, toast


def test_marks_that_turn_the_direction_are_seen() -> None:
    assert plain("a\u202egnp.exe") == "a\\u202egnp.exe"
    assert plain("\u2066x\u200f") == "\\u2066x\\u200f"


def test_control_characters_are_seen_and_letters_stay() -> None:
    assert plain("two\nlines\u0007") == "two\\nlines\\x07"
    assert plain("two\nlines", lines=True) == "two\nlines"
    assert plain("Räume & Sterne 猫 👩‍🚀") == "Räume & Sterne 猫 👩‍🚀"
    assert plain("lone \udcff") == "lone \\udcff"


def test_long_texts_are_cut() -> None:
    assert len(plain("a" * 5000)) == 300
    assert plain("a" * 5000).endswith("…")


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", '"><script>window.PWN=1</script>', "<b>bold</b>"]
)
def test_toasts_hold_no_markup(text: str) -> None:
    assert "<" not in toast(text)
