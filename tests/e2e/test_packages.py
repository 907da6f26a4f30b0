"""What is uploaded in a release: a wheel and a source package that are whole, small, and accepted."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import genzoo

ROOT = Path(__file__).resolve().parents[2]
MAX_WHEEL = 40e6


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source package of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


def test_the_wheel_is_whole_and_small(built: tuple[Path, Path]) -> None:
    wheel, _ = built
    assert wheel.name == f"genzoo-{genzoo.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < MAX_WHEEL
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(archive.read(name) for name in names if name.endswith("entry_points.txt"))
    assert b"genzoo = genzoo.__main__:run" in entry_points
    assert {
        "genzoo/py.typed",
        "genzoo/__init__.pyi",
        "genzoo/pipelines.py",
        "genzoo/kernels/native/kernels.c",
        "genzoo/evaluation/protocols.yaml",
        "genzoo/assets/NOTICE",
        "genzoo/_configs/models/dim_b4.yaml",
        "genzoo/_recipes/quickstart/dim_digits.yaml",
    } <= names
    outside = [name for name in names if not name.startswith(("genzoo/", f"genzoo-{genzoo.__version__}."))]
    assert outside == []


def test_every_tracked_file_of_the_package_is_in_both(built: tuple[Path, Path]) -> None:
    wheel, source = built
    listed = subprocess.run(
        ["git", "ls-files", "genzoo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this tree is no checkout")
    with zipfile.ZipFile(wheel) as archive, tarfile.open(source) as sources:
        in_wheel = set(archive.namelist())
        in_source = {name.partition("/")[2] for name in sources.getnames()}
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert tracked - in_wheel == set()
    assert tracked - in_source == set()
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "NOTICE", "README.md"} <= in_source


def test_an_index_would_take_both(built: tuple[Path, Path]) -> None:
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2
