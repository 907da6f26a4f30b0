"""A world divides work without loss, and whatever happens in one process all of them hear of."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genzoo.core.errors import DataError, GenzooError, Interrupted
from genzoo.core.processes import World, connected, default_device
from genzoo.training.config import TrainConfig
from genzoo.training.devices import build_accelerator

WORLDS = [[World(rank, size) for rank in range(size)] for size in (1, 2, 3, 7)]


@pytest.mark.parametrize("worlds", WORLDS, ids=len)
@pytest.mark.parametrize("num", [0, 1, 5, 12])
def test_parts_and_shares_hold_every_item_once(worlds: list[World], num: int) -> None:
    assert [index for world in worlds for index in world.part(num)] == list(range(num))
    assert sorted(index for world in worlds for index in world.every(range(num))) == list(range(num))
    assert max(len(world.part(num)) for world in worlds) - min(len(world.part(num)) for world in worlds) <= 1


def test_alone_everything_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert World.current() == World(3, 4)
    alone = World.single()
    assert (alone.rank, alone.size, alone.is_first) == (0, 1, True)
    assert alone.gather("x") == ["x"]
    assert alone.all_agree(True)
    assert not alone.all_agree(False)
    assert alone.together(lambda: 5) == alone.on_first(lambda: 5) == 5
    alone.wait()


def test_processes_that_nobody_joined_divide_work_and_refuse_to_wait() -> None:
    with pytest.raises(GenzooError, match=r"(?s)number 1 of 2.*connected"):
        World(1, 2).wait()


def test_connected_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with connected() as world:
        assert world == World.single()


def test_knowing_the_world_loads_no_torch() -> None:
    code = (
        "import sys; from genzoo.core.processes import World; World.current(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def _attempt(action: Callable[[], Any]) -> list[Any]:
    try:
        return ["returned", action()]
    except GenzooError as error:
        return [type(error).__name__, error.what, error.exit_code]
    except Exception as error:
        return [type(error).__name__, str(error)]


def _fail(world: World, rank: int, error: Exception) -> int:
    if world.rank == rank:
        raise error
    return world.rank


def _meet(rank: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    with connected() as world:  # joined already: left as it is
        tensors = world.gather(torch.full((2,), float(rank)))
        told = {
            "gathered": [tensor.tolist() for tensor in tensors],
            "agree": [world.all_agree(True), world.all_agree(rank == 0)],
            "together": world.together(lambda: rank * 10),
            "first": world.on_first(lambda: rank + 5),
            "ours": _attempt(lambda: world.together(lambda: _fail(world, 1, DataError("bad", where="x")))),
            "theirs": _attempt(lambda: world.together(lambda: _fail(world, 0, KeyError("k")))),
            "signal": _attempt(
                lambda: world.on_first(lambda: _fail(world, 0, Interrupted("stop", signum=15)))
            ),
        }
        world.wait()
    (folder / f"{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_gather_agree_and_share_errors(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_meet, args=(rank, tmp_path)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["gathered"] == second["gathered"] == [[0, 0], [1, 1]]
    assert first["agree"] == second["agree"] == [True, False]
    assert [first["together"], second["together"]] == [0, 10]
    assert first["first"] == second["first"] == 5
    assert first["ours"] == second["ours"] == ["DataError", "bad", 4]
    assert first["theirs"] == ["KeyError", "'k'"]
    assert second["theirs"] == ["GenzooError", "another process failed: KeyError: 'k'", 1]
    assert first["signal"] == second["signal"] == ["Interrupted", "stop", 143]


ACCELERATORS = [
    (None, 0, "cpu"),
    ("cuda", 8, "cuda:3"),
    ("cuda", 2, "cuda:1"),
    ("mps", 1, "mps"),
    ("xpu", 4, "xpu:3"),
]


@pytest.mark.parametrize(("kind", "count", "expected"), ACCELERATORS)
def test_each_process_takes_its_own_accelerator(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, count: int, expected: str
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    found = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    assert default_device() == expected
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert default_device() == "cpu"


def test_training_takes_the_device_that_sampling_takes() -> None:
    assert (
        build_accelerator(TrainConfig(steps=1, batch_size=1)).device.type
        == torch.device(default_device()).type
    )
