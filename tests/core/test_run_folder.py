"""The run folder: one writer, no metrics line twice, small files that are whole or absent."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from genzoo.core.environment import environment
from genzoo.core.errors import DataError, RunLockedError
from genzoo.core.run_folder import MetricsLog, RunFolder, read_metrics


def test_a_second_writer_is_refused_by_pid_and_host(tmp_path: Path) -> None:
    with RunFolder(tmp_path).lock():
        with pytest.raises(RunLockedError) as caught, RunFolder(tmp_path).lock():
            pass
        assert f"pid {os.getpid()} on {socket.gethostname()}" in str(caught.value)
        assert str(tmp_path) in str(caught.value)


def test_the_lock_is_free_after_its_block_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path).lock():
        raise ZeroDivisionError
    with RunFolder(tmp_path).lock():
        pass


def test_a_refused_writer_leaves_the_lock_with_its_holder(tmp_path: Path) -> None:
    with RunFolder(tmp_path).lock():
        for _ in range(3):
            with pytest.raises(RunLockedError), RunFolder(tmp_path).lock():
                pass


def test_metrics_are_cut_back_to_the_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resumed_step=0)
    for step in range(1, 6):
        log.append({"step": step, "loss": step / 3})
    log.close()
    path.write_text(path.read_text() + '{"step": 6, "lo')
    log = MetricsLog(path, resumed_step=3)
    log.append({"step": 4, "loss": 0.5})
    log.close()
    assert read_metrics(path) == [{"step": s, "loss": s / 3} for s in (1, 2, 3)] + [{"step": 4, "loss": 0.5}]


def test_every_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", resumed_step=0)
    log.append({"step": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_full_disk_is_told_with_the_path(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricsLog.__new__(MetricsLog)
    log.path = tmp_path / "metrics.jsonl"
    log._file = log.path.open("w", buffering=1)
    with pytest.raises(DataError, match=r"(?s)metrics\.jsonl.*No space left"):
        log.append({"step": 1})
    log.close()


def test_the_holder_is_named_and_the_folder_free_afterwards(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):
        with folder.lock(), pytest.raises(RunLockedError, match=f"pid {os.getpid()} on"), folder.lock():
            pass
    with folder.lock():
        (tmp_path / "run" / ".lock-holder").unlink()
        with pytest.raises(RunLockedError, match="an unknown process"), folder.lock():
            pass


def test_status_says_state_step_and_process(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.status() == {}
    folder.set_status("failed", step=3, steps=9, reason="why")
    status = folder.status()
    assert {key: status[key] for key in ("state", "step", "steps", "reason", "pid")} == {
        "state": "failed",
        "step": 3,
        "steps": 9,
        "reason": "why",
        "pid": os.getpid(),
    }


def test_a_damaged_status_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        RunFolder(tmp_path).status()


def test_commands_are_added_and_the_environment_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.describe(recipe_text="name: x\n", device="cpu", processes=2)
    folder.describe(recipe_text="name: x\n", device="cpu", processes=1)
    assert len((tmp_path / "command.txt").read_text().splitlines()) == 2
    assert (tmp_path / "recipe.yaml").read_text() == "name: x\n"
    assert json.loads((tmp_path / "env.json").read_text())["processes"] == 1


def test_the_environment_names_versions_and_processor() -> None:
    found = environment()
    assert found["packages"]["torch"].startswith("2.")
    assert found["cpus"] == os.cpu_count()
    assert found["cpu"]


def test_a_folder_has_a_run_once_it_has_metrics_or_checkpoints(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.lock():
        pass
    assert not folder.has_run()
    folder.metrics.touch()
    assert folder.has_run()


def test_a_running_status_is_read_as_dead_when_its_process_is_gone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.set_status("running", step=3, steps=9)
    assert folder.status()["state"] == "running"
    with subprocess.Popen(["true"]) as gone:
        pass
    told = json.loads((tmp_path / "status.json").read_text())
    assert {"pid", "started", "updated", "process"} <= told.keys()
    (tmp_path / "status.json").write_text(json.dumps(told | {"pid": gone.pid}))
    status = folder.status()
    assert (status["state"], status["step"]) == ("dead", 3)
    assert str(gone.pid) in status["reason"]
    # a later process of the same number is another one
    (tmp_path / "status.json").write_text(json.dumps(told | {"process": "1"}))
    assert folder.status()["state"] == "dead"
