"""Of every command that writes: a user's files stay, and the same command writes the same bytes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_cases import all_commands
from command_inputs import build_inputs
from PIL import Image
from writing_cases import NOTHING, WRITING, Writing

from genzoo.cli import main

MINE = (
    "README.md",
    "recipe.yaml",
    "grid.png",
    "preview.png",
    "concept.safetensors",
    "sweep.json",
    "report.txt",
)
YEAR = 365 * 24 * 3600.0
every = pytest.mark.parametrize("case", WRITING, ids=str)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all commands run."""
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(folder)
        build_inputs(str(folder))
        yield folder


def run(words: str, out: str = "OUT") -> int:
    """The exit code of a command line."""
    try:
        main([word.replace("OUT", out) for word in words.split()])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def content(path: Path, pattern: str = "**/*") -> dict[str, bytes]:
    found = [path] if path.is_file() else [one for one in path.glob(pattern) if one.is_file()]
    return {str(one.relative_to(path)): one.read_bytes() for one in sorted(found)}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's folder: pictures, and files of names that commands write."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (9, 8), (number, 40, 90)).save(folder / f"00000{number}.png")
    for name in MINE:
        (folder / name).write_bytes(b"mine")
    return folder


def test_the_cases_are_every_command() -> None:
    commands = {name for name, _ in all_commands()}
    writing = {case.command for case in WRITING}
    assert not writing & NOTHING
    assert writing | NOTHING == commands, "a new command needs a case in tests/writing_cases.py"
    assert len({str(case) for case in WRITING}) == len(WRITING)


@every
def test_a_users_files_are_refused_by_name_and_stay(
    inputs: Path, mine: Path, capsys: pytest.CaptureFixture[str], case: Writing
) -> None:
    for name in (case.out, case.inside):
        if "." in name:
            (mine / name).write_bytes(b"mine")
    before = content(mine)
    target = mine / case.out if "." in case.out else mine
    assert run(case.words, str(target)) == 2
    said = capsys.readouterr().err
    assert (mine / case.inside if case.inside else target).name in said
    assert "fix:" in said
    assert content(mine) == before


@pytest.mark.parametrize("case", [case for case in WRITING if case.same], ids=str)
def test_the_same_command_writes_the_same_bytes_on_another_day(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Writing
) -> None:
    target, found = tmp_path / case.out, []
    for later in (0.0, YEAR):
        now = time.time
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=now, later=later: now() + later)
            assert run(case.words, str(target)) == 0
        found.append(content(target, case.same))
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    first, second = found
    assert first
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@every
def test_a_place_whose_name_is_no_utf8_is_written_or_refused_before_anything(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: Writing
) -> None:
    name = os.fsdecode(b"caf\xe9 \xff") + Path(case.out).suffix
    code = run(case.words, str(tmp_path / name))
    said = capsys.readouterr().err
    assert code in (0, 2), said
    assert "this is a bug" not in said
    assert bool(list(tmp_path.iterdir())) == (code == 0), said
