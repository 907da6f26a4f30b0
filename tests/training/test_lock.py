"""One writer per run folder: the lock dies with its process, however that ends."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from fork_server import ForkServer

from genzoo.core.errors import RunLockedError
from genzoo.core.run_folder import RunFolder

pytestmark = pytest.mark.distributed


def test_a_held_folder_is_refused_and_free_after_kill_9(tmp_path: Path, fork_server: ForkServer) -> None:
    pipe = tmp_path / "events"
    os.mkfifo(pipe)
    run = tmp_path / "run"
    for _ in range(20):
        child = fork_server.start("cases:hold_lock", output=str(run), events=str(pipe))
        with pipe.open("rb") as events:
            assert events.read(1) == b"l"
        with pytest.raises(RunLockedError, match=f"pid {child.pid} on"), RunFolder(run).lock():
            pass
        child.kill()
        child.wait()
        with RunFolder(run).lock():
            pass


def test_a_forked_loader_worker_does_not_keep_the_lock(tmp_path: Path, fork_server: ForkServer) -> None:
    pipe = tmp_path / "events"
    os.mkfifo(pipe)
    target = "cases:hold_lock_with_forked_child"
    child = fork_server.start(target, output=str(tmp_path / "run"), events=str(pipe))
    with pipe.open("rb") as events:
        orphan = json.loads(events.readline())["child"]
    child.kill()
    child.wait()
    try:
        with RunFolder(tmp_path / "run").lock():
            pass
    finally:
        os.kill(orphan, signal.SIGKILL)
