"""Files of tensors written one by one: the bytes of the format's own library."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from golden.many_processes_sets import FOLDER
from safetensors.torch import load_file, save_file
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.processes import World
from genzoo.core.tensor_layout import CODES
from genzoo.core.tensor_stream import put_tensors, write_tensors

ABOUT = {"format": "pt"}


def every_kind() -> dict[str, Tensor]:
    """A tensor of each dtype, and some of awkward shapes and names."""
    generator = torch.Generator().manual_seed(2)
    numbers = torch.randint(0, 2, (3, 5), generator=generator)
    kinds = {f"{code}/x": numbers.to(dtype) for dtype, code in CODES.items()}
    others = {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 4), "ü": torch.ones(2), "Z": torch.ones(7)}
    return kinds | others


def test_the_golden_file_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    golden = FOLDER / "stream.safetensors"
    digest = put_tensors(tmp_path / "a", load_file(golden), ABOUT)
    assert (tmp_path / "a").read_bytes() == golden.read_bytes()
    assert digest == hashlib.sha256(golden.read_bytes()).hexdigest()


@pytest.mark.parametrize("metadata", [ABOUT, {}], ids=["about", "nothing"])
def test_every_kind_of_tensor_is_written_as_the_library_does(
    tmp_path: Path, metadata: dict[str, str]
) -> None:
    put_tensors(tmp_path / "ours", every_kind(), metadata)
    save_file(every_kind(), tmp_path / "theirs", metadata or None)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_what_is_larger_than_a_piece_and_shares_memory_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genzoo.core.tensor_stream.PIECE", 7)
    wide = torch.arange(40.0).view(5, 8)
    tensors = {"a": wide, "b": wide, "columns": wide[:, ::3]}
    digest = put_tensors(tmp_path / "a", tensors, {})
    assert all(load_file(tmp_path / "a")[name].equal(value) for name, value in tensors.items())
    assert digest == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()


def test_a_refused_file_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tensors(tmp_path / "new" / "a", {"x": torch.ones(3)}, ABOUT, World.single())
    before = path.read_bytes()

    def full(file: object, data: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("genzoo.core.tensor_stream._write_all", full)
    with pytest.raises(DataError, match="No space left"):
        write_tensors(path, {"x": torch.zeros(3)}, ABOUT, World.single())
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["a"]


def test_the_layout_names_every_tensor_without_gaps(tmp_path: Path) -> None:
    put_tensors(tmp_path / "a", every_kind(), {})
    data = (tmp_path / "a").read_bytes()
    length = int.from_bytes(data[:8], "little")
    spans = [entry["data_offsets"] for entry in json.loads(data[8 : 8 + length]).values()]
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == len(data) - 8 - length
