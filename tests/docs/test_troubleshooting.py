"""The page of errors quotes messages that exist, and leaves no exit code out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from genzoo_docs import exit_codes

from genzoo.core.errors import Interrupted

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "about" / "troubleshooting.md").read_text(encoding="utf-8")
BY_CODE, _, BY_MESSAGE = PAGE.partition("## By message")
MESSAGES = re.findall(r"^\| `([^`]+)` \|", BY_MESSAGE, re.M)


def said(path: Path) -> str:
    """The strings of a file, values within them left out."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return "\n".join(
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


SAID = "\n".join(said(path) for path in (ROOT / "genzoo").rglob("*.py"))


def test_the_twenty_most_frequent_are_there() -> None:
    assert len(set(MESSAGES)) >= 20


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_that_genzoo_says(message: str) -> None:
    assert message in SAID


def test_every_exit_code_has_a_row() -> None:
    shown = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", BY_CODE, re.M) for code in row.split(", ")}
    assert {kind.exit_code for kind in exit_codes.kinds() if kind is not Interrupted} <= shown
    assert {128 + signal for signal in (1, 2, 15)} <= shown
