"""The checkpoint store: what is committed is complete and verified, and what is damaged is found."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from genzoo.core import checkpoint_saving as store
from genzoo.core.checkpoint import checkpoint_steps, latest_valid, load_checkpoint
from genzoo.core.checkpoint_manifest import canonical, file_digest, verify_checkpoint, weights_digest
from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.errors import CheckpointError, NonFiniteError

FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def content(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    weights = {"a.weight": torch.randn(5, 3, generator=generator), "b": torch.arange(4)}
    ema = {"a.weight": weights["a.weight"] * 0.5}
    optimizer = {
        "a.weight/exp_avg": torch.randn(5, 3, generator=generator),
        "a.weight/step": torch.tensor(2.0),
    }
    return {
        "weights": weights,
        "ema": ema,
        "optimizer": optimizer,
        "state": {"seed": 1, "nested": {"x": 0.1}},
    }


def save(root: Path, step: int, **options: Any) -> Path:
    return save_checkpoint(root, step, **(content(step) | options))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, 7))
    expected = content(7)
    assert_same(loaded.weights, expected["weights"])
    assert_same(loaded.ema, expected["ema"])
    assert_same(loaded.optimizer, expected["optimizer"])
    assert loaded.state == expected["state"] | {"step": 7}
    assert loaded.averaged()["a.weight"].equal(expected["ema"]["a.weight"])
    assert loaded.averaged()["b"].equal(expected["weights"]["b"])


def test_a_checkpoint_written_in_format_1_loads() -> None:
    loaded = load_checkpoint(Path(__file__).parent / "checkpoint_format_1" / "step_00000007")
    assert loaded.step == 7
    assert loaded.weights["b"].equal(torch.arange(4))
    assert loaded.ema["a.weight"].equal(loaded.weights["a.weight"] * 0.5)
    assert loaded.optimizer["a.weight/step"].equal(torch.tensor(2.0))
    assert loaded.state == {"seed": 1, "nested": {"x": 0.1}, "step": 7}


def test_only_the_parts_asked_for_are_read(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    (path / "optimizer.safetensors").unlink()
    loaded = load_checkpoint(path, parts=("model", "ema"))
    assert loaded.optimizer == {}
    assert_same(loaded.weights, content(7)["weights"])


def test_tied_and_sliced_tensors_are_stored_whole(tmp_path: Path) -> None:
    tensor = torch.randn(4, 6)
    weights = {"one": tensor, "two": tensor, "slice": tensor[:, ::2]}
    loaded = load_checkpoint(save(tmp_path, 1, weights=weights)).weights
    assert_same(loaded, {name: value.clone() for name, value in weights.items()})


def test_pruning_keeps_the_newest_and_the_multiples(tmp_path: Path) -> None:
    for step in range(10, 80, 10):
        save(tmp_path, step, keep_last=2, keep_every=30)
    assert list(checkpoint_steps(tmp_path)) == [70, 60, 30]


def test_nothing_committed_means_none(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step_00000001-123").mkdir()
    assert latest_valid(tmp_path) is None
    assert latest_valid(tmp_path / "missing") is None


def test_leftovers_of_a_killed_save_vanish_with_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / ".tmp-step_00000001-123"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]


def test_a_corrupt_step_of_the_same_number_is_replaced(tmp_path: Path) -> None:
    (save(tmp_path, 5) / "model.safetensors").write_bytes(b"")
    save(tmp_path, 5)
    assert verify_checkpoint(tmp_path / "step_00000005") == 5
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".tmp-")] == [
        "step_00000005"
    ]


@pytest.mark.parametrize("part", ["weights", "ema", "optimizer"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_tensors_are_never_committed(tmp_path: Path, part: str, value: float) -> None:
    save(tmp_path, 1)
    bad = content(2)[part]
    bad["a.weight" if part != "optimizer" else "a.weight/exp_avg"][2, 1] = value
    with pytest.raises(NonFiniteError, match=r"a\.weight"):
        save(tmp_path, 2, **{part: bad})
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


class Recorder:
    """Names of the files and folders that are written, synced, renamed and removed, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.paths: dict[int, str] = {}
        opened, synced, renamed, removed = os.open, os.fsync, Path.rename, shutil.rmtree

        def record_open(path: Any, *args: Any, **kwargs: Any) -> int:
            descriptor = opened(path, *args, **kwargs)
            self.paths[descriptor] = Path(path).name if isinstance(path, (str, Path)) else ""
            return descriptor

        def record_sync(descriptor: int) -> None:
            self.calls.append(f"sync {self._short(self.paths[descriptor])}")
            synced(descriptor)

        def record_rename(source: Path, target: Path) -> Path:
            if not target.name.startswith(".tmp-"):
                self.calls.append(f"rename {self._short(source.name)} {target.name}")
            return renamed(source, target)

        def record_remove(path: Any, **kwargs: Any) -> None:
            self.calls.append("prune")
            removed(path, **kwargs)

        monkeypatch.setattr(os, "open", record_open)
        monkeypatch.setattr(os, "fsync", record_sync)
        monkeypatch.setattr(Path, "rename", record_rename)
        monkeypatch.setattr(shutil, "rmtree", record_remove)

    @staticmethod
    def _short(name: str) -> str:
        return "TEMPORARY" if name.startswith(".tmp-") and "-step_" in name else name


def test_files_are_synced_before_the_rename_and_the_parent_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    save(root, 1)
    recorder = Recorder(monkeypatch)
    save(root, 2, keep_last=1)
    calls = recorder.calls
    renamed = calls.index("rename TEMPORARY step_00000002")
    assert set(calls[: renamed - 2]) == {f"sync {name}" for name in FILES if name != "manifest.json"}
    assert calls[renamed - 2 : renamed + 2] == [
        "sync manifest.json",
        "sync TEMPORARY",
        "rename TEMPORARY step_00000002",
        "sync root",
    ]
    assert calls[-1] == "prune"
    assert calls.index("prune") > renamed


OPERATIONS = [
    (os, "mkdir"),
    (os, "open"),
    (os, "fsync"),
    (Path, "rename"),
    (safetensors.torch, "save_file"),
    (store, "write_manifest"),
    (Path, "touch"),
    (Path, "chmod"),
    (Path, "write_bytes"),
    (Path, "stat"),
]


class FailAt:
    """Raise OSError at the n-th call of an operation."""

    def __init__(self, operation: Any, number: int) -> None:
        self.operation, self.number, self.calls = operation, number, 0

    def bind(self) -> Any:
        def failing(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.number:
                raise OSError(28, "No space left on device")
            return self.operation(*args, **kwargs)

        return failing


@pytest.mark.parametrize(("owner", "name"), OPERATIONS)
def test_an_error_at_any_file_operation_leaves_a_valid_newest_step(
    tmp_path: Path, owner: Any, name: str
) -> None:
    for number in range(1, 50):
        root = tmp_path / str(number)
        save(root, 1)
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        with pytest.MonkeyPatch.context() as patch:
            fault = FailAt(getattr(owner, name), number)
            patch.setattr(owner, name, fault.bind())
            failure = _attempt(root)
        if failure is None and fault.calls < number:
            return
        newest = latest_valid(root)
        assert newest is not None
        assert newest.name in ("step_00000001", "step_00000002")
        assert all(path.read_bytes() == data for path, data in before.items())
        if failure is not None:
            assert "No space left on device" in failure
            assert "216 bytes" in failure
            assert str(root / "step_00000002") in failure
        save(root, 3)
        assert latest_valid(root) == root / "step_00000003"
    raise AssertionError("the operation never came to an end")


def _attempt(root: Path) -> str | None:
    try:
        save(root, 2)
    except CheckpointError as error:
        return str(error)
    return None


LIMITED = """
import resource, sys, torch
from pathlib import Path
from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.errors import CheckpointError
weights = {"w": torch.zeros(5000)}
root = Path(sys.argv[1])
save_checkpoint(root, 1, weights=weights, state={})
failed = 0
for number, limit in enumerate(range(0, 30000, 1500)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save_checkpoint(root, 2 + number, weights=weights, state={}, keep_last=99)
    except CheckpointError as error:
        assert "20,000 bytes" in str(error) and "step_" in str(error), error
        failed += 1
sys.stdout.write(str(failed))
"""


def test_a_limit_on_file_size_is_told_and_harms_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 14  # limits 0 ... 19,500 are below the 20,000 bytes of the tensor
    assert sorted(checkpoint_steps(tmp_path)) == [1, *range(16, 22)]
    assert all(verify_checkpoint(path) for path in checkpoint_steps(tmp_path).values())
    assert not list(tmp_path.glob(".tmp-*"))


def damaged(root: Path) -> Iterator[tuple[str, Path]]:
    """Copies of a good step, each damaged in one way."""
    good, other = save(root / "good", 5), save(root / "other", 6)
    chance = random.Random(0)

    def copy(label: str) -> Path:
        return shutil.copytree(good, root / label.replace("/", "_") / good.name)

    for name in FILES:
        data = (good / name).read_bytes()
        for length in chance.sample(range(len(data)), 12):
            label = f"truncate/{name}/{length}"
            (copy(label) / name).write_bytes(data[:length])
            yield label, root / label.replace("/", "_")
        for bit in chance.sample(range(8 * len(data)), 40):
            label = f"flip/{name}/{bit}"
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            (copy(label) / name).write_bytes(flipped)
            yield label, root / label.replace("/", "_")
        for label, act in (("delete", Path.unlink), ("link", _make_link), ("folder", _make_folder)):
            act(copy(f"{label}/{name}") / name)
            yield f"{label}/{name}", root / f"{label}_{name}"
        label = f"swap/{name}"
        shutil.copy(other / name, copy(label) / name)
        yield label, root / label.replace("/", "_")
        label = f"append/{name}"
        with (copy(label) / name).open("ab") as file:
            file.write(b"\n")
        yield label, root / label.replace("/", "_")


def _make_link(path: Path) -> None:
    target = path.rename(path.with_name("elsewhere"))
    path.symlink_to(target)


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_every_damage_is_found(tmp_path: Path) -> None:
    missed = []
    count = 0
    for label, root in damaged(tmp_path):
        count += 1
        try:
            latest_valid(root)
        except CheckpointError:
            continue
        missed.append(label)
    assert count == 5 * (12 + 40 + 3 + 1 + 1)
    assert missed == []


def test_a_step_renamed_to_another_number_is_found(tmp_path: Path) -> None:
    save(tmp_path, 5).rename(tmp_path / "step_00000009")
    with pytest.raises(CheckpointError, match="belongs to step 5"):
        verify_checkpoint(tmp_path / "step_00000009")


def test_a_copy_under_any_other_name_loads(tmp_path: Path) -> None:
    shutil.copytree(save(tmp_path / "run", 5), tmp_path / "best")
    assert load_checkpoint(tmp_path / "best").step == 5


def test_corrupt_steps_are_named_and_the_previous_one_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "step_00000003" / "ema.safetensors").unlink()
    (tmp_path / "step_00000002" / "state.json").write_text("{}")
    assert latest_valid(tmp_path) == tmp_path / "step_00000001"
    assert "step_00000003: ema.safetensors is missing" in caplog.text
    assert "step_00000002: state.json has 2 bytes" in caplog.text


def rehashed(path: Path, **files: bytes) -> Path:
    """The step with other file contents and a manifest that agrees with them, as a forger would write it."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    for name, data in files.items():
        name = name.replace("_json", ".json").replace("_safetensors", ".safetensors")
        (path / name).write_bytes(data)
        manifest["files"][name] = {"bytes": len(data), "sha256": file_digest(path / name)}
    (path / "manifest.json").write_bytes(canonical(manifest))
    return path


def in_segments(path: Path, *places: tuple[int, int]) -> Path:
    """The step as several processes write it, with a hash of each (offset, bytes) of its weights."""
    data = (path / "model.safetensors").read_bytes()
    manifest = json.loads((path / "manifest.json").read_bytes())
    hashes = [[at, size, hashlib.sha256(data[at : at + size]).hexdigest()] for at, size in places]
    manifest["files"]["model.safetensors"] = {"bytes": len(data), "segments": hashes}
    (path / "manifest.json").write_bytes(canonical(manifest | {"format": 2}))
    return path


def test_weights_that_several_processes_hashed_are_read_and_every_byte_counts(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    digest, size = weights_digest(path, "raw"), (path / "model.safetensors").stat().st_size
    in_segments(path, (0, 9), (9, 40), (49, size - 49))
    assert_same(load_checkpoint(path).weights, content(5)["weights"])
    assert weights_digest(path, "raw") == digest
    whole = (path / "model.safetensors").read_bytes()
    for place in (0, 8, 9, 48, 49, size - 1):
        (path / "model.safetensors").write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        with pytest.raises(CheckpointError, match="does not match its recorded hash"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    "cuts",
    [[], [(0, 9)], [(0, 9), (10, None)], [(0, 9), (8, None)], [(9, None), (0, 9)], [(0, 0), (0, None)]],
    ids=str,
)
def test_hashes_that_do_not_follow_one_another_are_refused(
    tmp_path: Path, cuts: list[tuple[int, int | None]]
) -> None:
    """cuts: (offset, bytes), None up to the end."""
    path = save(tmp_path, 5)
    size = (path / "model.safetensors").stat().st_size
    in_segments(path, *[(at, size - at if count is None else count) for at, count in cuts])
    with pytest.raises(CheckpointError, match=r"manifest\.json lacks sizes or hashes"):
        load_checkpoint(path)


HOSTILE_TENSORS = {
    "empty": b"",
    "huge header": (2**63).to_bytes(8, "little"),
    "header beyond the file": (10**6).to_bytes(8, "little") + b"{}",
    "not json": (4).to_bytes(8, "little") + b"\xff\xfe{}",
    "overlap": b"",
    "pickle": b"\x80\x04c__builtin__\neval\n.",
}
_OVERLAP = json.dumps(
    {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in ("a", "b")}
).encode()
HOSTILE_TENSORS["overlap"] = len(_OVERLAP).to_bytes(8, "little") + _OVERLAP + bytes(8)


@pytest.mark.parametrize("name", HOSTILE_TENSORS)
def test_hostile_tensor_files_give_the_one_error(tmp_path: Path, name: str) -> None:
    path = rehashed(save(tmp_path, 5), model_safetensors=HOSTILE_TENSORS[name])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_checkpoint(path)


HOSTILE_STATES = [b"[1]", b"null", b"{", b"\xff", b"[" * 100_000, b"9" * 5000]


@pytest.mark.parametrize("data", HOSTILE_STATES, ids=range(len(HOSTILE_STATES)))
def test_hostile_states_give_the_one_error(tmp_path: Path, data: bytes) -> None:
    path = rehashed(save(tmp_path, 5), state_json=data)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        load_checkpoint(path)


HOSTILE_MANIFESTS: list[Any] = [
    {},
    {"format": 1, "step": 5, "files": {"../../etc/passwd": {"bytes": 1, "sha256": "0"}}},
    {"format": 1, "step": 5, "files": None},
    {"format": 2, "step": 5, "files": {}},
    {"format": "x", "step": 5, "files": {}},
    {"format": 1, "step": 5, "files": dict.fromkeys(FILES[:4], 3)},
    {"format": 1, "step": "5", "files": {name: {"bytes": 1, "sha256": ""} for name in FILES[:4]}},
]


@pytest.mark.parametrize("manifest", HOSTILE_MANIFESTS, ids=range(len(HOSTILE_MANIFESTS)))
def test_hostile_manifests_give_the_one_error(tmp_path: Path, manifest: Any) -> None:
    path = save(tmp_path, 5)
    (path / "manifest.json").write_bytes(canonical(manifest))
    with pytest.raises(CheckpointError, match="corrupt"):
        load_checkpoint(path)


def test_a_key_that_looks_like_a_path_stays_a_key(tmp_path: Path) -> None:
    hostile = safetensors.torch.save({"../../escaped": torch.zeros(1)})
    path = rehashed(save(tmp_path / "run", 5), model_safetensors=hostile)
    assert list(load_checkpoint(path).weights) == ["../../escaped"]
    assert not list(tmp_path.rglob("escaped*"))


def test_the_umask_decides_who_may_read_the_files(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert len({(path / name).stat().st_mode for name in FILES}) == 1


def test_open_files_stay_constant_over_many_saves(tmp_path: Path) -> None:
    save(tmp_path, 1)
    before = len(os.listdir("/proc/self/fd"))
    for step in range(2, 30):
        save(tmp_path, step)
        assert latest_valid(tmp_path) is not None
    assert len(os.listdir("/proc/self/fd")) == before
