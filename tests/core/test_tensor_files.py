"""A file of tensors that the disk does not give is told from one that is damaged, and both errors name it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from genzoo.core import tensor_files
from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.checkpoint_manifest import CheckpointNotGiven
from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.errors import CheckpointError, DataError, WeightsError
from genzoo.core.files import as_safetensors, write_file
from genzoo.core.tensor_files import look, of_disk, open_tensors, read_tensors

# what the format's library and torch say when too many files are open, or a disk fails
REFUSALS = (
    FileNotFoundError("No such file or directory: x"),
    RuntimeError("unable to open file </x> in read-only mode: Too many open files (24)"),
    RuntimeError("unable to mmap 24 bytes from file </x>: Cannot allocate memory (12)"),
    OSError(errno.ESTALE, "Stale file handle"),
)
DAMAGE = (SafetensorError("Error while deserializing header"), ValueError("odd"), KeyError("a"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "w.safetensors", as_safetensors({"a": torch.ones(3)}, {"by": "us"}))


def test_a_whole_file_is_read(file: Path) -> None:
    assert torch.equal(read_tensors(file)["a"], torch.ones(3))
    with open_tensors(file) as opened:
        assert opened.metadata() == {"by": "us"}
    assert look(file, lambda opened: list(opened.keys())) == ["a"]


@pytest.mark.parametrize("raised", REFUSALS[:2] + REFUSALS[3:], ids=str)
def test_what_the_disk_does_not_give_is_to_be_tried_again(file: Path, raised: Exception) -> None:
    with (
        pytest.raises(DataError, match="the index cannot be read just now") as caught,
        open_tensors(file, "the index", error=DataError),
    ):
        raise raised
    assert str(file) in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert of_disk(file, raised)


@pytest.mark.parametrize("raised", DAMAGE, ids=str)
def test_what_is_damaged_is_to_be_fetched_again(file: Path, raised: Exception) -> None:
    said = r"(?s)the weights cannot be read\n.*w.safetensors.*fetch or write"
    with pytest.raises(WeightsError, match=said), open_tensors(file):
        raise raised
    assert of_disk(file, raised) is None


def test_a_lack_of_memory_stays_what_it_is(file: Path) -> None:
    with pytest.raises(RuntimeError, match="Cannot allocate memory"), open_tensors(file):
        raise REFUSALS[2]


def test_a_look_at_what_is_none_says_nothing_and_at_what_is_not_given_everything(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    assert look(tmp_path / "junk", lambda opened: 1) is None
    assert look(tmp_path / "absent", lambda opened: 1) is None

    def refused(*args: Any, **kwargs: Any) -> None:
        raise REFUSALS[1]

    monkeypatch.setattr("safetensors.safe_open", refused)
    with pytest.raises(WeightsError, match="just now"):
        look(file, lambda opened: 1)


def test_a_checkpoint_that_is_not_given_is_not_skipped_for_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, weights={"a": torch.full((3,), float(step))}, state={})
    place = tensor_files.Path.open

    def fails(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.parent.name == "step_00000002" and path.suffix == ".safetensors":
            raise OSError(errno.EIO, "Input/output error")
        return place(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(tensor_files.Path, "open", fails)
        with pytest.raises(CheckpointNotGiven, match=r"(?s)Input/output error.*move this folder away"):
            latest_valid(tmp_path)
    newest = latest_valid(tmp_path)
    assert newest is not None
    assert load_checkpoint(newest).step == 2
    (newest / "model.safetensors").write_bytes(b"junk")
    older = latest_valid(tmp_path)
    assert older is not None
    assert older.name == "step_00000001"
    with pytest.raises(CheckpointError, match="corrupt"):
        load_checkpoint(newest)
