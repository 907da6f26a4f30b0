"""No circle of files: imports inside functions and for type checkers count as much as those at the top."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def modules(root: Path, package: str) -> dict[str, Path]:
    """Every module of a package by its full name."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.Module, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known:
                    yield inner
                elif node.module in known:
                    yield node.module


def arrows(root: Path, package: str) -> dict[str, set[str]]:
    """Module -> the modules it imports."""
    known = modules(root, package)
    return {
        name: set(imported(ast.parse(path.read_text(encoding="utf-8")), known)) - {name}
        for name, path in known.items()
    }


def circles(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    """The strongly connected components of more than one node (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[frozenset[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            members = [stack.pop()]
            while members[-1] != node:
                members.append(stack.pop())
            if len(members) > 1:
                found.append(frozenset(members))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def test_no_files_import_each_other_in_a_circle() -> None:
    found = [sorted(circle) for circle in circles(arrows(ROOT, "genzoo"))]
    assert not found, "open this circle: move what both need below both"


@pytest.mark.parametrize(
    "line",
    [
        "import shop.b",
        "from shop import b",
        "from shop.b import thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from shop.b import thing",
        "def late():\n    from shop.b import thing",
    ],
)
def test_an_import_of_any_kind_closes_a_circle(tmp_path: Path, line: str) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").write_text("")
    (tmp_path / "shop/a.py").write_text(line)
    (tmp_path / "shop/b.py").write_text("from shop.c import thing")
    (tmp_path / "shop/c.py").write_text("thing = 1")
    assert circles(arrows(tmp_path, "shop")) == []
    (tmp_path / "shop/c.py").write_text("import shop.a")
    assert circles(arrows(tmp_path, "shop")) == [frozenset({"shop.a", "shop.b", "shop.c"})]
