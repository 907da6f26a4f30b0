"""What a checkpoint costs beside `safetensors.save_file` and fsync of the same tensors on the same disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.registry import Options, case
from genzoo.core.checkpoint_manifest import PARTS
from genzoo.core.checkpoint_saving import save_checkpoint
from genzoo.core.finite import require_finite
from genzoo.core.host_copies import HostCopies
from genzoo.core.processes import World
from genzoo.core.run_folder import RunFolder
from genzoo.training.config import TrainConfig
from genzoo.training.record import RunRecord
from genzoo.training.saving import Saver
from genzoo.training.state import Captured

Tensors = dict[str, dict[str, torch.Tensor]]


def state_of(megabytes: int) -> Tensors:
    """Weights, averages and two slots of an optimizer: matrices of 4 MB and vectors of 4 KB, like blocks'."""
    generator = torch.Generator().manual_seed(0)
    matrices = max(1, megabytes // 16)
    model = {f"blocks.{n}.weight": torch.randn(1024, 1024, generator=generator) for n in range(matrices)}
    model |= {f"blocks.{n}.bias": torch.randn(1024, generator=generator) for n in range(matrices)}
    slots = {f"{name}/{slot}": t.square() for name, t in model.items() for slot in ("exp_avg", "exp_avg_sq")}
    return {"model": model, "ema": {name: t * 0.5 for name, t in model.items()}, "optimizer": slots}


def plain(tensors: Tensors, folder: Path) -> None:
    """The same three files as other trainers write them, and on the disk when this returns."""
    for part, content in tensors.items():
        path = folder / f"{part}.safetensors"
        save_file(content, path)
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def hashed(tensors: Tensors) -> None:
    """sha256 of all bytes, on one thread."""
    digest = hashlib.sha256()
    for content in tensors.values():
        for tensor in content.values():
            digest.update(tensor.view(-1).view(torch.uint8).numpy().data)


def naive_check(tensors: Tensors) -> bool:
    """The finite check as it is usually written."""
    return all(bool(torch.isfinite(t).all()) for content in tensors.values() for t in content.values())


@dataclass(frozen=True)
class Steps:
    """How long work that goes on beside a save takes."""

    alone: float
    beside: float
    held_up: float


@dataclass(frozen=True)
class Taken:
    """Seconds of one call, and of all processors together."""

    wall: float
    cpu: float


def in_turn(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[Taken]]:
    """Each in turn, so that what else the machine does hits all of them alike; the first round is warm-up."""
    rounds: dict[str, list[Taken]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, function in work.items():
            cpu = time.process_time()
            wall = _clocked(function)
            rounds[name].append(Taken(wall, time.process_time() - cpu))
    return {name: found[1:] for name, found in rounds.items()}


def steps_beside(tensors: Tensors, folder: Path) -> Steps:
    """Matrix products as steps: alone, beside a save in flight, and how long the save holds them up."""
    config = TrainConfig(steps=1, batch_size=1, save="background", keep_last=1)
    with RunFolder(folder).lock():
        saver = Saver(RunRecord(RunFolder(folder), None, steps=1), config, World.single(), sharded=False)
        content = Captured(tensors["model"], tensors["ema"], tensors["optimizer"], {})
        saver.save(content, 1)  # the first copy allocates
        saver.result()
        alone = statistics.median(_step() for _ in range(20))
        held_up = _clocked(lambda: saver.save(content, 2))
        beside = []
        while not saver.has_ended:
            beside.append(_step())
        saver.result()
        saver.close()
    return Steps(alone, statistics.median(beside or [alone]), held_up)


def _step() -> float:
    def multiply() -> None:
        matrix = torch.ones(600, 600)
        for _ in range(6):
            matrix = matrix @ matrix / 600

    return _clocked(multiply)


def _clocked(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def require_same(tensors: Tensors, ours: Path, theirs: Path) -> None:
    """Refuse to time files that do not hold the same."""
    for part in PARTS:
        one, other = load_file(ours / f"{part}.safetensors"), load_file(theirs / f"{part}.safetensors")
        if any(not one[name].equal(other[name]) for name in tensors[part]):
            raise AssertionError(f"{part} differs")


@case("checkpoint_save")
def checkpoint_save(options: Options) -> list[dict[str, Any]]:
    """Seconds per GB of a checkpoint and of its parts; `mb` (512) of state, in `folder` (the system's)."""
    megabytes = int(options.settings.get("mb", 512))
    tensors = state_of(megabytes)
    gigabytes = sum(t.nbytes for content in tensors.values() for t in content.values()) / 1e9
    root = Path(tempfile.mkdtemp(prefix="genzoo-save-", dir=options.settings.get("folder")))
    try:
        return _rows(tensors, gigabytes, root, options)
    finally:
        shutil.rmtree(root)


def _rows(tensors: Tensors, gigabytes: float, root: Path, options: Options) -> list[dict[str, Any]]:
    theirs, ours = root / "plain", root / "checkpoints"
    theirs.mkdir()
    plain(tensors, theirs)
    path = save_checkpoint(ours, 1, **_sections(tensors), state={}, keep_last=1)
    require_same(tensors, path, theirs)
    copies, counted = HostCopies(), iter(range(2, 10_000))
    copies.make_room(tensors)
    work: Mapping[str, Callable[[], object]] = {
        "save_file + fsync": lambda: plain(tensors, theirs),
        "genzoo, foreground": lambda: save_checkpoint(
            ours, next(counted), **_sections(tensors), state={}, keep_last=1
        ),
        "finite check": lambda: require_finite(tensors),
        "isfinite().all()": lambda: naive_check(tensors),
        "sha256 alone": lambda: hashed(tensors),
        "copy, as the background makes it": lambda: copies.fill(tensors),
    }
    taken = in_turn(work, options.repeats)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "seconds_per_gb": statistics.median(one.wall for one in rounds) / gigabytes,
            "best": min(one.wall for one in rounds) / gigabytes,
            "cpu_seconds_per_gb": min(one.cpu for one in rounds) / gigabytes,
        }
        for name, rounds in taken.items()
    ]
    pairs = zip(taken["genzoo, foreground"], taken["save_file + fsync"], strict=True)
    rows.append(_ratio("foreground beside save_file + fsync", [a.wall / b.wall for a, b in pairs], 1.25))
    return [*rows, *_beside(tensors, gigabytes, root, copies, options)]


def _beside(
    tensors: Tensors, gigabytes: float, root: Path, copies: HostCopies, options: Options
) -> list[dict[str, Any]]:
    found, copied = [], []
    for number in range(options.repeats):
        found.append(steps_beside(tensors, root / f"run{number}"))
        copied.append(_clocked(lambda: copies.fill(tensors)))
    held_up = [one.held_up for one in found]
    name = "background, steps held up"
    return [
        {
            "name": name,
            "seconds_per_gb": statistics.median(held_up) / gigabytes,
            "best": min(held_up) / gigabytes,
        },
        _ratio(f"{name}, in copies", [a / b for a, b in zip(held_up, copied, strict=True)], 1.3),
        _ratio("background, a step beside it", [one.beside / one.alone for one in found], 1.15),
    ]


def _ratio(name: str, ratios: list[float], asked: float) -> dict[str, Any]:
    free = max(0.0, (os.cpu_count() or 1) - os.getloadavg()[0])  # cores that nobody used in the last minute
    best = min(ratios)
    return {
        "name": name,
        "ratio": statistics.median(ratios),
        "best": best,
        "asked": asked,
        "free_cores": free,
    }


def _sections(tensors: Tensors) -> dict[str, Any]:
    return {"weights": tensors["model"], "ema": tensors["ema"], "optimizer": tensors["optimizer"]}
