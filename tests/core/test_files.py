"""Files and folders appear whole, synced, under the umask, and a disk that refuses is told with the path."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from genzoo.core import files
from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import as_safetensors, open_log, temporary, write_file, write_folder, write_json


def refuse(*args: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o007], ids=["022", "007"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


CONTENTS: dict[str, tuple[Any, bytes]] = {
    "bytes": (b"\x00new", b"\x00new"),
    "text": ("né\n", "né\n".encode()),
    "writer": (lambda path: path.write_bytes(b"by hand"), b"by hand"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_is_replaced_and_folders_above_it_are_made(tmp_path: Path, kind: str) -> None:
    content, expected = CONTENTS[kind]
    path = tmp_path / "a" / "b" / "file.bin"
    assert write_file(path, "old") == path
    assert write_file(str(path), content) == path
    assert path.read_bytes() == expected
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


FAULTS: dict[str, tuple[Any, str]] = {
    "write": (Path, "write_bytes"),
    "sync": (os, "fsync"),
    "rename": (Path, "replace"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_refuses_is_told_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    path = write_file(tmp_path / "status.json", "old")
    monkeypatch.setattr(*FAULTS[fault], refuse)
    with pytest.raises(DataError, match=r"(?s)status\.json.*No space left"):
        write_file(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.parametrize("raised", [SafetensorError("I/O error: Os { code: 28 }"), OSError(30, "read-only")])
def test_a_writer_that_the_disk_refuses_is_told_as_well(tmp_path: Path, raised: Exception) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise raised

    with pytest.raises(DataError, match=r"x\.safetensors"):
        write_file(tmp_path / "x.safetensors", write)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [write_file, write_folder])
def test_an_interruption_leaves_no_part(tmp_path: Path, make: Callable[..., Path]) -> None:
    def stop(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", stop)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_a_file_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/below\.txt"):
        write_file(tmp_path / "file" / "below.txt", "x")
    with pytest.raises(DataError, match=r"file/below"):
        write_folder(tmp_path / "file" / "below", {"a": b""})


def test_tensors_and_files_alike_may_be_read_by_whom_the_umask_says(tmp_path: Path, umask: int) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T}
    written = write_file(tmp_path / "a.safetensors", as_safetensors(tensors, {"made": "here"}))
    assert torch.equal(load_file(written)["a"], tensors["a"])
    folder = write_folder(tmp_path / "folder", {"b.safetensors": as_safetensors(tensors), "c/d.txt": "d"})
    found = [written, write_json(tmp_path / "x.json", {}), folder / "b.safetensors", folder / "c" / "d.txt"]
    assert {mode(path) for path in found} == {0o666 & ~umask}
    assert {mode(path) for path in (folder, folder / "c")} == {0o777 & ~umask}


def test_a_folder_filled_by_another_library_follows_the_umask(tmp_path: Path, umask: int) -> None:
    private = as_safetensors({"a": torch.ones(2)})
    folder = write_folder(tmp_path / "out", lambda part: private(part / "private"))
    assert mode(folder / "private") == 0o666 & ~umask


def test_a_second_name_of_a_file_keeps_its_mode(tmp_path: Path) -> None:
    source = write_file(tmp_path / "weights", b"w")
    source.chmod(0o400)
    write_folder(tmp_path / "best", lambda part: os.link(source, part / "weights"))
    assert mode(source) == 0o400


def test_all_of_a_folder_is_synced_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    rename = Path.rename

    def record(path: Path, to: Path) -> Path:
        calls.append(f"rename {to.name}")
        return rename(path, to)

    monkeypatch.setattr(files, "sync_path", lambda path: calls.append(f"sync {path.name[-7:]}"))
    monkeypatch.setattr(Path, "rename", record)
    write_folder(tmp_path / "parent" / "the_out", {"a.bytes": b"1", "deeper/b.bytes": b"2"})
    assert set(calls[:3]) == {"sync a.bytes", "sync b.bytes", "sync deeper"}
    assert calls[3:] == ["sync the_out", "rename the_out", "sync parent"]


def test_only_a_file_that_may_be_lost_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_file(tmp_path / "kept", "x")
    assert len(synced) == 1
    write_file(tmp_path / "lost", "x", sync=False)
    assert len(synced) == 1


def test_where_folders_cannot_be_synced_their_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def no_folders(path: Path, flags: int, *mode: int) -> int:
        if Path(path).is_dir() or not flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(errno.EACCES, "as Windows says")
        return opened(path, flags, *mode)

    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(os, "open", no_folders)
    write_folder(tmp_path / "out", {"a/b": b"1"})
    monkeypatch.undo()
    assert (tmp_path / "out" / "a" / "b").read_bytes() == b"1"


def test_an_existing_folder_is_refused_kept_or_replaced(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "out", {"old": b""})
    with pytest.raises(UsageError, match="exists already"):
        write_folder(folder, {"new": b""})
    assert write_folder(folder, {"new": b""}, existing="keep") == folder
    assert [path.name for path in folder.iterdir()] == ["old"]
    write_folder(folder, {"new": b""}, existing="replace")
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert [path.name for path in write_folder(tmp_path / "out", {"new": b""}).iterdir()] == ["new"]


@pytest.mark.parametrize("existing", ["refuse", "keep"])
def test_a_folder_that_appears_meanwhile_is_not_touched(tmp_path: Path, existing: Any) -> None:
    def slow(part: Path) -> None:
        write_folder(tmp_path / "out", {"first": b""})

    if existing == "keep":
        write_folder(tmp_path / "out", slow, existing=existing)
    else:
        with pytest.raises(UsageError, match="exists already"):
            write_folder(tmp_path / "out", slow, existing=existing)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_replacement_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "best", {"old": b"1"})
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DataError, match=r"(?s)best.*No space left"):
        write_folder(folder, {"new": b"2"}, existing="replace")
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def _name(path: Path, queue: Any) -> None:
    queue.put(temporary(path).name)


def test_no_two_calls_threads_or_forks_share_a_temporary_name(tmp_path: Path) -> None:
    names = [temporary(tmp_path / "x.npy").name for _ in range(50)]
    thread = threading.Thread(target=lambda: names.append(temporary(tmp_path / "x.npy").name))
    thread.start()
    thread.join(60)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_name, args=(tmp_path / "x.npy", queue)) for _ in range(3)]
    for child in children:
        child.start()
    names += [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    assert len(set(names)) == 54
    assert all(name.startswith(".tmp-") and name.endswith("-x.npy") for name in names)


def test_json_is_text_that_people_read(tmp_path: Path) -> None:
    path = write_json(tmp_path / "x.json", {"b": [1], "a": Path("p")}, default=str)
    assert path.read_text() == '{\n  "b": [\n    1\n  ],\n  "a": "p"\n}\n'
    assert json.loads(path.read_text()) == {"b": [1], "a": "p"}


def test_a_log_grows_and_hands_over_each_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in ("one\n", "two\n"):
        with open_log(path) as log:
            log.write(line)
            assert path.read_text().endswith(line)
    assert path.read_text() == "one\ntwo\n"
