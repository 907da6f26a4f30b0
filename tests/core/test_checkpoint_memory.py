"""A checkpoint is hashed once, and again only when one of its files changed."""

from pathlib import Path

import pytest
import torch

from genzoo.core import checkpoint_manifest
from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.checkpoint_memory import CheckpointMemory
from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.errors import CheckpointError


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed, in order."""
    names: list[str] = []
    digest = checkpoint_manifest.file_digest

    def counted(path: Path) -> str:
        names.append(path.name)
        return digest(path)

    monkeypatch.setattr(checkpoint_manifest, "file_digest", counted)
    return names


@pytest.fixture
def saved(tmp_path: Path, hashed: list[str]) -> Path:
    weights = {"w": torch.arange(6.0)}
    path = save_checkpoint(
        tmp_path, 3, weights=weights, ema=weights, optimizer={"w/m": torch.ones(6)}, state={}
    )
    hashed.clear()
    return path


def test_a_second_look_hashes_nothing(saved: Path, hashed: list[str]) -> None:
    memory = CheckpointMemory()
    assert latest_valid(saved.parent, memory.verify) == saved
    assert sorted(hashed) == ["ema.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]
    hashed.clear()
    assert latest_valid(saved.parent, memory.verify) == saved
    assert torch.equal(
        load_checkpoint(saved, ("model", "ema"), memory.verify).weights["w"], torch.arange(6.0)
    )
    assert memory.verify(saved) == 3
    assert hashed == []


def test_only_parts_that_were_not_looked_at_yet_are_hashed(saved: Path, hashed: list[str]) -> None:
    memory = CheckpointMemory()
    memory.verify(saved, ("model",))
    hashed.clear()
    memory.verify(saved, ("model", "ema"))
    assert [name for name in hashed if name != "state.json"] == ["ema.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_file_that_changed_since_is_found_out(saved: Path, name: str) -> None:
    memory = CheckpointMemory()
    memory.verify(saved)
    content = bytearray((saved / name).read_bytes())
    content[-1] ^= 1
    (saved / "new").write_bytes(content)
    (saved / "new").replace(saved / name)
    with pytest.raises(CheckpointError, match="corrupt"):
        memory.verify(saved)
    assert memory.verify(_again(saved)) == 3


def test_a_file_that_is_gone_is_found_out(saved: Path) -> None:
    memory = CheckpointMemory()
    memory.verify(saved)
    (saved / "ema.safetensors").unlink()
    with pytest.raises(CheckpointError, match="corrupt"):
        memory.verify(saved, ("ema",))


def test_what_failed_is_not_remembered_as_good(saved: Path) -> None:
    memory = CheckpointMemory()
    (saved / "model.safetensors").write_bytes(b"no tensors")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="corrupt"):
            memory.verify(saved)


def test_a_part_that_was_not_looked_at_is_not_taken_for_good(saved: Path) -> None:
    memory = CheckpointMemory()
    (saved / "optimizer.safetensors").write_bytes(b"no tensors")
    assert memory.verify(saved, ("model",)) == 3
    with pytest.raises(CheckpointError, match="corrupt"):
        memory.verify(saved)


def _again(saved: Path) -> Path:
    """The same step, saved anew in place of the one that was altered."""
    weights = {"w": torch.arange(6.0)}
    return save_checkpoint(saved.parent, 3, weights=weights, state={})
