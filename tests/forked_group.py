"""Run a function in processes that are joined over gloo; forked, so that nothing is imported again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from genzoo.core.processes import World


def run_together(
    function: Callable[[World], Any], folder: Path, *, world: int = 2, limit: float = 120.0
) -> list[Any]:
    """What `function(World)` returns in each process, by rank: a value that torch.save takes, or its error.

    A process that is killed gives minus the signal. limit: seconds after which all of them are killed, and
    an AssertionError raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_rank, args=(rank, world, folder, function)) for rank in range(world)]
    for worker in workers:
        worker.start()
    until = time.monotonic() + limit
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
    hung = [rank for rank, worker in enumerate(workers) if worker.is_alive()]
    for rank in hung:
        os.kill(workers[rank].pid or 0, signal.SIGKILL)
    assert not hung, f"ranks {hung} did not end within {limit:g} s"
    return [_result(folder / f"rank{rank}.pt", worker.exitcode) for rank, worker in enumerate(workers)]


def _rank(rank: int, world: int, folder: Path, function: Callable[[World], Any]) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world
    )
    result: Any
    try:
        result = function(World.current())
    except Exception as error:
        result = error
    torch.save(result, folder / f"rank{rank}.pt")
    os._exit(0)  # without pytest's own end


def _result(path: Path, code: int | None) -> Any:
    return torch.load(path, weights_only=False) if path.exists() else code
