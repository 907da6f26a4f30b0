"""Nothing asks a hidden global whether there are other processes: a World is handed down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "core/processes.py": "the one place",
    "training/devices.py": "Accelerate joins the group; it is compared with what torchrun started, and left",
    "families/car/vqvae/quantizer.py": "codes are counted over the group in which the model trains",
    "families/car/vqvae/dead_codes.py": "the same",
}
NAMES = {
    "is_initialized",
    "is_torchelastic_launched",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "destroy_process_group",
    "all_gather_object",
    "gather_object",
    "broadcast_object_list",
    "barrier",
}
ENVIRONMENT = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}


def asks(source: str) -> Iterator[int]:
    """The lines of a module that ask about processes, or talk to them."""
    for node in ast.walk(ast.parse(source)):
        named = isinstance(node, ast.Attribute) and node.attr in NAMES
        told = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ENVIRONMENT
        if named or told:
            yield node.lineno


def test_processes_are_known_in_one_place() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "genzoo").rglob("*.py"))
        if path.relative_to(ROOT / "genzoo").as_posix() not in ALLOWED
        for line in asks(path.read_text(encoding="utf-8"))
    ]
    assert not found, "take a World of genzoo/core/processes.py"


@pytest.mark.parametrize("name", ALLOWED)
def test_every_exception_is_needed(name: str) -> None:
    assert list(asks((ROOT / "genzoo" / name).read_text(encoding="utf-8")))
