"""What a killed process left goes with the next writer; nothing of the living, and nothing of others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from dead_processes import name_of_the_dead

from genzoo.core import leftovers
from genzoo.core.checkpoint import latest_valid
from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.files import open_new, put_in_place, scratch_folder, write_file, write_folder
from genzoo.core.leftovers import remove_leftovers, temporary, tidy
from genzoo.core.process_identity import machine, process_start
from genzoo.core.run_folder import RunFolder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_the_dead_left_goes_and_nothing_else(tmp_path: Path) -> None:
    name_of_the_dead(tmp_path / "x.png").write_bytes(b"half")
    folder = name_of_the_dead(tmp_path / "run")
    (folder / "below").mkdir(parents=True)
    target = tmp_path / "users"
    target.write_text("mine")
    name_of_the_dead(tmp_path / "link").symlink_to(target)
    kept = [temporary(tmp_path / "x.png"), tmp_path / ".tmp-notes", tmp_path / ".tmp-1-2-x.png"]
    for path in kept:
        path.write_bytes(b"")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(["users", *(path.name for path in kept)])
    assert target.read_text() == "mine"


def test_a_number_that_another_process_has_now_is_not_its_owner(tmp_path: Path) -> None:
    path = tmp_path / f".tmp-{machine()}-{os.getpid()}-1-0123abcd-x"
    path.touch()
    assert process_start(os.getpid()) != "1"
    remove_leftovers(tmp_path)
    assert not path.exists()


def test_another_machines_go_when_they_are_forgotten(tmp_path: Path) -> None:
    new, old = (tmp_path / f".tmp-00000000-12345-678-0123abc{n}-x" for n in range(2))
    for path in (new, old):
        path.touch()
    long_ago = time.time() - leftovers.FORGOTTEN - 60
    os.utime(old, (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [new.name]


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_the_next_writer_removes_them(tmp_path: Path, write: object) -> None:
    name_of_the_dead(tmp_path / "x").mkdir()
    content = {"a": b"1"} if write is write_folder else b"1"
    write(tmp_path / "new", content)
    assert names(tmp_path) == ["new"]


def test_a_file_that_is_streamed_removes_them_too(tmp_path: Path) -> None:
    name_of_the_dead(tmp_path / "x").touch()
    part = temporary(tmp_path / "new")
    open_new(part).close()
    put_in_place(part, tmp_path / "new")
    assert names(tmp_path) == ["new"]


def test_a_folder_is_looked_at_once(tmp_path: Path) -> None:
    tidy(tmp_path)
    left = name_of_the_dead(tmp_path / "x")
    left.touch()
    tidy(tmp_path)
    assert left.exists()


def test_a_start_of_training_tidies_the_whole_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for folder in (run.path, run.checkpoints, run.samples, run.path / "best"):
        folder.mkdir(parents=True, exist_ok=True)
        name_of_the_dead(folder / "x.json").touch()
    with run.lock():
        assert not list(run.path.rglob(".tmp-*"))


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_whatever_has_a_temporary_name_never_blocks_a_save(tmp_path: Path, kind: str) -> None:
    root, target = tmp_path / "checkpoints", tmp_path / "target"
    root.mkdir()
    target.mkdir()
    (target / "precious").touch()
    stranger = root / ".tmp-anything"
    {"file": stranger.touch, "link": lambda: stranger.symlink_to(target), "folder": stranger.mkdir}[kind]()
    final = save_checkpoint(root, 1, weights={}, state={})
    assert latest_valid(root) == final
    assert names(root) == ["step_00000001"]
    assert names(target) == ["precious"]


def test_a_long_name_can_still_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'ü' * 120}.txt"
    write_file(path, "x")
    assert names(tmp_path) == [path.name]
    assert temporary(path).suffix == ".txt"


def test_a_library_that_makes_a_file_beside_its_own_leaves_none(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        (path.parent / "beside").touch()
        path.write_bytes(b"1")

    write_file(tmp_path / "x.bin", write)
    assert names(tmp_path) == ["x.bin"]


def test_a_scratch_folder_is_gone_after_its_block(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "x") as folder:
        (folder / "a").touch()
        assert folder.parent == tmp_path
    assert names(tmp_path) == []
