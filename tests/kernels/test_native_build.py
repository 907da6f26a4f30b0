"""Compiling the C kernels: many processes at once, a private cache, and clear reasons."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genzoo.kernels.native import build

# the file alone: importing the package would spend most of the test on importing torch
BUILD = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("build", {build.__file__!r})
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
print(build.load("f32").genzoo_scan_forward_f32 is not None)
"""


@pytest.mark.skipif(build.unavailable_reason() is not None, reason="no C compiler on this machine")
def test_many_processes_build_once_into_the_same_cache(tmp_path: Path) -> None:
    environment = os.environ | {"GENZOO_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BUILD]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outcomes = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0] * 4, outcomes[0][1]
    assert {out for out, _ in outcomes} == {"True\n"}
    files = sorted(path.name for path in (tmp_path / "kernels").iterdir())
    assert [Path(name).suffix for name in files] == [".sha256", ".so", ""]
    assert files[1].startswith("genzoo_f32_")
    assert files[2] == "lock"


def test_a_compiler_that_fails_is_a_reason_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'error: out of ink' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    assert "out of ink" in (build.unavailable_reason() or "")


def test_a_cache_that_cannot_be_written_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "file"))
    assert "file" in (build.unavailable_reason() or "")


def cut(library: Path) -> None:
    library.write_bytes(library.read_bytes()[:4096])


def zero_half(library: Path) -> None:
    content = library.read_bytes()
    library.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def flip(library: Path) -> None:
    content = bytearray(library.read_bytes())
    content[len(content) // 3] ^= 4
    library.write_bytes(content)


def lose_hash(library: Path) -> None:
    library.with_suffix(".sha256").unlink()


DAMAGE = {"cut": cut, "half zero": zero_half, "flipped": flip, "gone": Path.unlink, "no hash": lose_hash}


@pytest.mark.skipif(build.unavailable_reason() is not None, reason="no C compiler on this machine")
def test_a_damaged_library_is_never_loaded_and_is_made_anew(tmp_path: Path) -> None:
    whole = build._library("f32", tmp_path, None)
    size = whole.stat().st_size
    for name, damage in DAMAGE.items():
        damage(whole)
        assert not build._is_whole(whole), name
        assert build._library("f32", tmp_path, None) == whole
        assert build._is_whole(whole), name
        assert whole.stat().st_size == size, name
    inode = whole.stat().st_ino
    assert build._library("f32", tmp_path, None).stat().st_ino == inode  # a whole one is not made again


@pytest.mark.skipif(build.unavailable_reason() is not None, reason="no C compiler on this machine")
def test_a_whole_library_serves_without_a_compiler_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    whole = build._library("f32", tmp_path, None)
    assert build._library("f32", tmp_path, "no-such-compiler") == whole
    assert build._open(whole).genzoo_scan_forward_f32
    with pytest.raises(build.NativeBuildError, match="no-such-compiler"):
        build._library("f64", tmp_path, "no-such-compiler")
    zero_half(whole)
    with pytest.raises(build.NativeBuildError, match="no-such-compiler"):
        build._library("f32", tmp_path, "no-such-compiler")


def test_the_name_depends_on_the_compiler(tmp_path: Path) -> None:
    names = []
    for version in ("one", "two"):
        compiler = tmp_path / version
        compiler.write_text(f"#!/bin/sh\necho {version}\n")
        compiler.chmod(0o755)
        names.append(build._version(str(compiler)))
    assert names[0] != names[1]
