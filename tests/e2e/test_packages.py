"""What is uploaded in a release: a wheel and a source package that are whole, small, and accepted."""

from __future__ import annotations

import importlib.util
import re
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
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "NOTICE", "README.md", "hatch_build.py"} <= in_source


def test_an_index_would_take_both(built: tuple[Path, Path]) -> None:
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_page_of_an_index_has_no_link_into_nothing(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        page = archive.read(name).decode().partition("\n\n")[2]
    assert "100 samples, one row a digit" in page
    assert re.findall(r"\]\((?!https://)[^)]*\)|<!--", page) == []


def test_pictures_have_the_address_of_the_release_where_one_is_told() -> None:
    specification = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    text = "![a row](docs/a.png) [how](docs/b.md) [paper](https://example.org) <b>\n"
    place = "https://example.org/o/genzoo"
    assert module.shown(text, place + "/", "1.2.3") == (
        f"![a row]({place}/raw/v1.2.3/docs/a.png) [how]({place}/blob/v1.2.3/docs/b.md) "
        "[paper](https://example.org) <b>\n"
    )
    assert module.shown(text, "", "1.2.3") == "*a row* how [paper](https://example.org) <b>\n"
