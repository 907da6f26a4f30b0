"""Optional abilities are asked in one place, and no layer names a higher one in a string."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from genzoo.core.plugins import GROUP

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "genzoo").rglob("*.py"))

MAY_ASK = {
    "genzoo/core/signatures.py": "types and functions of Python that may lack a name or a module",
    "genzoo/evaluation/features.py": "any callable is a feature network, and some have no name",
    "genzoo/pretrained/pipeline_latents.py": "pipelines of diffusers are each told otherwise",
    "genzoo/core/recipe_text.py": "PyYAML is built with libyaml or without",
}


def questions(path: Path) -> Iterator[int]:
    """Lines of a file that ask an object for a member by a literal name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            second = node.args[1] if len(node.args) > 1 else None
            asks = node.func.id in ("hasattr", "getattr") and isinstance(second, ast.Constant)
            yield from [node.lineno] if asks else []


def test_optional_abilities_are_asked_in_one_place() -> None:
    names = {str(path.relative_to(ROOT)): list(questions(path)) for path in FILES}
    assert {name: lines for name, lines in names.items() if lines and name not in MAY_ASK} == {}


@pytest.mark.parametrize("name", MAY_ASK)
def test_exceptions_are_still_needed(name: str) -> None:
    assert list(questions(ROOT / name))


def floors() -> list[list[str]]:
    """The layers of setup.cfg, lowest first."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["importlinter:contract:layers"]["layers"].strip().splitlines()
    return [[name.strip() for name in line.split("|")] for line in reversed(lines)]


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Text in the code of a file, docstrings aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def test_no_layer_names_a_higher_one_in_a_string() -> None:
    levels = {name: level for level, names in enumerate(floors()) for name in names}
    named = re.compile(r"\bgenzoo\.[a-z_]+")
    entry_points = {GROUP}  # what other packages write; it is no module's name
    found = []
    for path in FILES:
        own = levels.get(".".join(path.relative_to(ROOT).with_suffix("").parts[:2]))
        texts = strings(path) if own is not None else ()
        for line, text in ((line, text) for line, text in texts if text not in entry_points):
            higher = [name for name in named.findall(text) if levels.get(name, -1) > own]
            found += [f"{path.relative_to(ROOT)}:{line}: {name}" for name in higher]
    assert not found
