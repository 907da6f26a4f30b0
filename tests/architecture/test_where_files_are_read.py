"""Small files of others are read by genzoo/core/reading.py, which opens no pipe and has a limit."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "core/reading.py": "the one place",
    "core/checkpoint_manifest.py": "regular files by lstat, of the size that the manifest records",
    "core/recipe_text.py": "regular files only, 64 KiB",
    "core/plugins.py": "what installed packages declare",
    "core/environment.py": "what Linux says in /proc",
    "core/process_identity.py": "what Linux says in /proc",
    "data/image_decode.py": "regular files only, 512 MiB",
    "data/emoji.py": "what ships",
    "data/latent_store.py": "shards of its own, of which an error of the disk has to be told from damage",
    "evaluation/comparison/page.py": "what ships",
    "evaluation/protocols.py": "what ships",
    "kernels/native/build.py": "what ships, and what Linux says in /proc",
    "pretrained/clip_vocabulary.py": "what comes with open_clip",
}
TENSORS = {
    "core/tensor_files.py": "the one place",
    "core/checkpoint_manifest.py": "tells a checkpoint that is corrupt from one that the disk does not give",
    "core/stored_tensors.py": "stays open; what it raises is told by read_in",
    "data/latent_store.py": "stays open; tells damage from a disk's error before it removes anything",
    "families/custom_diffusion/files/base_weights.py": "stays open; what it raises is told by named",
    "pretrained/loading.py": "files of others, of any format",
}
PICTURES = {"assets/build_emoji.py": "what ships"}
OPENERS = {"safe_open", "load_file"}
METHODS = {"read_text", "read_bytes"}
MODULE = "genzoo.core.reading"


def reads(source: str) -> Iterator[int]:
    """The lines of a module that read a whole file by pathlib, numpy or a json file by itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if node.func.attr in METHODS or (owner, node.func.attr) in {("json", "load"), ("np", "load")}:
                yield node.lineno


def test_small_files_are_read_in_one_place() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "genzoo").rglob("*.py"))
        if path.relative_to(ROOT / "genzoo").as_posix() not in ALLOWED
        for line in reads(path.read_text(encoding="utf-8"))
    ]
    assert not found, f"read through {MODULE}"


def opens_tensors(source: str) -> Iterator[int]:
    """The lines of a module that import what opens safetensors files."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("safetensors"):
            yield from (node.lineno for one in node.names if one.name in OPENERS)


def test_files_of_tensors_are_opened_where_what_fails_is_told() -> None:
    found = {
        path.relative_to(ROOT / "genzoo").as_posix()
        for path in sorted((ROOT / "genzoo").rglob("*.py"))
        if list(opens_tensors(path.read_text(encoding="utf-8")))
    }
    assert found == set(TENSORS), "read through genzoo.core.tensor_files"


def opens_pictures(source: str) -> Iterator[int]:
    """The lines of a module that let Pillow choose a decoder: that of EPS starts a program."""
    for node in ast.walk(ast.parse(source)):
        opening = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
        if opening and not any(one.arg == "formats" for one in node.keywords):
            yield node.lineno


def test_pictures_are_opened_by_the_decoders_that_are_named() -> None:
    found = {
        path.relative_to(ROOT / "genzoo").as_posix()
        for path in sorted((ROOT / "genzoo").rglob("*.py"))
        if list(opens_pictures(path.read_text(encoding="utf-8")))
    }
    assert found == set(PICTURES), "Image.open(..., formats=...)"


@pytest.mark.parametrize("line", ["path.read_text()", "Path(a).read_bytes()", "json.load(f)", "np.load(f)"])
def test_the_guard_of_readers_sees(line: str) -> None:
    assert list(reads(line)) == [1]


@pytest.mark.parametrize("line", ["read_text(path)", "json.loads(text)", "torch.load(path)"])
def test_the_guard_of_readers_lets_pass(line: str) -> None:
    assert list(reads(line)) == []
