"""Files are written by genzoo/core/files.py alone, so that one place knows how: whole, synced, readable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "core/files.py": "the one place",
    "core/checkpoint.py": "steps are set aside by renames in a tested order",
    "core/checkpoint_saving.py": "steps replace each other and are pruned by renames in a tested order",
    "assets/build_digits.py": "run once by hand to make what ships",
    "assets/build_emoji.py": "run once by hand to make what ships",
}
FUNCTIONS = {"save_file", "mkstemp", "mkdtemp", "fdopen", "fsync"}
METHODS = {"write_text", "write_bytes", "rename", "touch"}


def writes(source: str) -> Iterator[int]:
    """The lines of a module that write, rename or sync a file without core/files.py."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            plain = name in FUNCTIONS or (bool(owner) and name in METHODS)
            if plain or _replaces(node, name, owner) or (name == "open" and _opens(node, owner)):
                yield node.lineno


def _replaces(call: ast.Call, name: str, owner: str) -> bool:
    # str.replace takes two arguments, dataclasses.replace keywords
    one = len(call.args) == 1 and not call.keywords
    return name == "replace" and (owner == "os" or (bool(owner) and one))


def _opens(call: ast.Call, owner: str) -> bool:
    """Whether a file is opened for writing; av.open is PyAV's, and writes to memory."""
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return owner != "av" and any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)


def test_files_are_written_in_one_place() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "genzoo").rglob("*.py"))
        if path.relative_to(ROOT / "genzoo").as_posix() not in ALLOWED
        for line in writes(path.read_text(encoding="utf-8"))
    ]
    assert not found, "write through genzoo/core/files.py"


@pytest.mark.parametrize("name", ALLOWED)
def test_every_exception_is_needed(name: str) -> None:
    assert list(writes((ROOT / "genzoo" / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "line",
    [
        "os.replace(a, b)",
        "part.replace(path)",
        "Path(a).rename(b)",
        "path.open('w')",
        "open(path, mode='a')",
        "open(path, 'r+b')",
        "path.write_text('x')",
        "save_file(tensors, path)",
        "tempfile.mkstemp()",
    ],
)
def test_the_guard_sees(line: str) -> None:
    assert list(writes(line)) == [1]


@pytest.mark.parametrize(
    "line", ["'a'.replace('b', 'c')", "replace(record, step=1)", "path.open()", "open(path, 'rb')"]
)
def test_the_guard_lets_pass(line: str) -> None:
    assert list(writes(line)) == []
