"""Foreign weight files: what loads, what is refused, and that nothing in a file ever runs."""

from __future__ import annotations

import argparse
import builtins
import functools
import io
import os
import pickle
import random
import struct
import subprocess
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from genzoo.core.errors import CheckpointError, GenzooError, WeightsError
from genzoo.pretrained.fitting import check_against, spec_of
from genzoo.pretrained.loading import blockers, load_foreign, load_state

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, 2.0])}


def saved(path: Path, data: Any, **options: Any) -> Path:
    torch.save(data, path, **options)
    return path


class Canary:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.path}",))


def test_safetensors_is_recognised_by_content(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "weights.bin")
    loaded = load_foreign(tmp_path / "weights.bin")
    assert all(torch.equal(loaded[key], value) for key, value in WEIGHTS.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_both_formats_load(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path / "w.pt", OrderedDict(WEIGHTS), _use_new_zipfile_serialization=zipped)
    loaded = load_foreign(path)
    assert all(torch.equal(loaded[key], value) for key, value in WEIGHTS.items())


def test_training_checkpoint_with_a_namespace_loads_and_prefers_averaged_weights(tmp_path: Path) -> None:
    ema = {key: value + 1 for key, value in WEIGHTS.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    checkpoint = {
        "model": WEIGHTS,
        "ema": ema,
        "opt": optimizer,
        "args": argparse.Namespace(lr=1e-4, model="XL"),
    }
    path = saved(tmp_path / "0400000.pt", checkpoint)
    tree = load_foreign(path)
    assert tree["args"] == {"lr": 1e-4, "model": "XL"}
    assert tree["opt"]["state"]["0"]["step"] == 3
    assert torch.equal(load_state(path)["a.bias"], ema["a.bias"])
    assert torch.equal(load_state(path, prefer=("model",))["a.bias"], WEIGHTS["a.bias"])


def test_wrapper_prefix_is_removed(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", {f"module.{key}": value for key, value in WEIGHTS.items()})
    assert set(load_state(path)) == set(WEIGHTS)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pt"):
        load_foreign(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("data", [[1, 2], torch.ones(2), "text", {}, {"lr": 1.0}], ids=repr)
def test_files_without_weights_are_refused(tmp_path: Path, data: Any) -> None:
    with pytest.raises(CheckpointError):
        load_state(saved(tmp_path / "w.pt", data))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "legacy.pt"])
def test_truncated_files_are_refused_at_every_length(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "w.safetensors":
        save_file(WEIGHTS, path)
    else:
        saved(path, WEIGHTS, _use_new_zipfile_serialization=name == "w.pt")
    content = path.read_bytes()
    for length in range(0, len(content) - 1, max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=path.name):
            load_foreign(path)


def payloads(canary: Path) -> dict[str, Any]:
    """Objects whose unpickling would run something, by several routes."""

    def reduces_to(function: Any, *args: Any) -> Any:
        return type("Payload", (), {"__reduce__": lambda self: (function, args)})()

    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": reduces_to(os.system, touch),
        "eval": reduces_to(builtins.eval, code),
        "exec": reduces_to(builtins.exec, code),
        "open": reduces_to(builtins.open, str(canary), "w"),
        "subprocess": reduces_to(subprocess.check_call, ["touch", str(canary)]),
        "getattr": reduces_to(builtins.getattr, str, "upper"),
        "partial": reduces_to(functools.partial, os.system, touch),
        "mkdir": reduces_to(os.mkdir, str(canary)),
        "torch.load": reduces_to(torch.load, str(canary)),
        "torch.save": reduces_to(torch.save, WEIGHTS, str(canary)),
        "loads": reduces_to(pickle.loads, pickle.dumps(Canary(canary))),
        "nested": {"model": dict(WEIGHTS), "args": argparse.Namespace(x=[{"deep": Canary(canary)}])},
        "module": torch.nn.Linear(2, 3),
        "path": Path("x"),
        "reduce_ex": reduces_to(functools.reduce, os.system, [touch]),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", list(payloads(Path("canary"))))
def test_hostile_pickles_run_nothing(tmp_path: Path, kind: str, zipped: bool) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "w.pt"
    saved(path, {"weights": payloads(canary)[kind]}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError):
        load_foreign(path)
    assert not canary.exists()


def test_blocking_classes_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", {"w": Canary(tmp_path / "canary")})
    assert blockers(path) == ["posix.system"]
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        load_foreign(path)


def test_bare_pickle_is_refused(tmp_path: Path) -> None:
    path, canary = tmp_path / "w.pt", tmp_path / "canary"
    path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(CheckpointError):
        load_foreign(path)
    assert not canary.exists()


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", {"w": torch.zeros(100_000)})
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry.filename))
    assert bomb.stat().st_size < path.stat().st_size / 10
    with pytest.raises(CheckpointError, match="compressed"):
        load_foreign(bomb)


def test_tensors_that_repeat_a_few_bytes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", {"w": torch.zeros(1).expand(10**12)})
    with pytest.raises(CheckpointError, match="repeats"):
        load_foreign(path)


def test_containers_that_multiply_are_refused(tmp_path: Path) -> None:
    level: list[Any] = [0] * 10
    for _ in range(12):
        level = [level] * 10
    with pytest.raises(CheckpointError, match="more than"):
        load_foreign(saved(tmp_path / "w.pt", {"w": level}))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    level: list[Any] = []
    for _ in range(200):
        level = [level]
    with pytest.raises(CheckpointError):
        load_foreign(saved(tmp_path / "w.pt", {"w": level}))


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 10**8),
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 40) + b"{" * 40,
    ],
    ids=["huge header", "long header", "empty", "deep"],
)
def test_odd_safetensors_headers_give_one_error(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(head)
    with pytest.raises(CheckpointError):
        load_state(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_mutated_files_give_no_other_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.bin"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        checkpoint = {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1)}
        saved(path, checkpoint, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    rng = random.Random(kind)
    refused = sum(refuses(path, mutated(content, rng)) for _ in range(700))
    assert 0 < refused < 700


def mutated(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data))
        choice = rng.randrange(4)
        if choice == 0:
            data[place] = rng.randrange(256)
        elif choice == 1:
            del data[place : place + rng.randint(1, 16)]
        elif choice == 2:
            data[place:place] = rng.randbytes(rng.randint(1, 16))
        else:
            data[place] ^= 1 << rng.randrange(8)
    return bytes(data)


def refuses(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        load_foreign(path)
    except GenzooError:
        return True
    return False


def test_matching_weights_pass_and_take_the_expected_dtype() -> None:
    module = torch.nn.Linear(3, 2)
    state = {key: value.half() for key, value in module.state_dict().items()}
    checked = check_against(spec_of(module), state)
    assert {value.dtype for value in checked.values()} == {torch.float32}
    module.load_state_dict(checked)


def test_every_difference_is_listed() -> None:
    expected = dict.fromkeys(("gone", "shape", "type", "nan", "good"), ((2, 3), torch.float32))
    state = {
        "shape": torch.ones(3, 2), "type": torch.ones(2, 3, dtype=torch.int64),
        "nan": torch.full((2, 3), float("nan")), "good": torch.ones(2, 3), "extra": torch.ones(1),
    }  # fmt: skip
    with pytest.raises(CheckpointError) as caught:
        check_against(expected, state, source="w.pt")
    message = str(caught.value)
    for part in (
        "1 missing (gone)",
        "1 unexpected (extra)",
        "shape (3, 2) instead of (2, 3)",
        "type torch.int64",
    ):
        assert part in message
    assert "1 not finite (nan)" in message


def test_ignored_and_optional_keys_must_be_asked_for() -> None:
    expected = {"w": ((1,), torch.float32), "pos": ((1,), torch.float32)}
    state = {"w": torch.ones(1), "extra.w": torch.ones(1)}
    checked = check_against(expected, state, ignore=["extra.*"], optional=["pos"])
    assert set(checked) == {"w"}


def test_in_memory_pickles_are_not_trusted_by_extension(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": Canary(tmp_path / "canary")}, buffer)
    path = tmp_path / "w.safetensors"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError):
        load_foreign(path)
    assert not (tmp_path / "canary").exists()
