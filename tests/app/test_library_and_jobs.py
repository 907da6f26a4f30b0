"""What the page lists, and the processes it starts: known by start time, never by number alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genzoo.app.jobs import Jobs, is_alive, send_stop
from genzoo.app.library import Library, curves, previews
from genzoo.core.errors import UsageError
from genzoo.core.process_identity import process_start

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="start times come from /proc")


def a_run(folder: Path, name: str, **status: object) -> Path:
    run = folder / name
    (run / "checkpoints" / "step_00000003").mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: x\n")
    (run / "status.json").write_text(json.dumps({"state": "finished", "step": 3, "steps": 7, **status}))
    return run


def record_of(pid: int, /, **changes: object) -> dict[str, object]:
    return {"pid": pid, "process": process_start(pid), "host": socket.gethostname(), **changes}


@pytest.fixture
def sleeper():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield child
    child.kill()
    child.wait()


def test_runs_are_found_below_the_folder_and_nowhere_else(tmp_path: Path) -> None:
    here = tmp_path / "runs"
    a_run(here, "a", updated="2026-01-01")
    a_run(here, "group/b", updated="2026-01-02")
    a_run(here, "a/checkpoints/inside")
    a_run(here, ".hidden")
    a_run(tmp_path, "outside")
    (here / "link").symlink_to(tmp_path / "outside")
    assert [run.name for run in Library(here).runs()] == ["group/b", "a"]


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/../../outside", "", None, 3, ["a"], "a\0"])
def test_only_a_listed_name_is_a_run_or_a_source(tmp_path: Path, name: object) -> None:
    a_run(tmp_path / "runs", "a")
    a_run(tmp_path, "outside")
    library = Library(tmp_path / "runs")
    for ask in (library.run, library.source, library.base):
        with pytest.raises(UsageError):
            ask(name)


def test_what_ships_can_be_sampled_where_it_makes_pictures(tmp_path: Path) -> None:
    library = Library(tmp_path)
    assert set(library.sources()) == {
        "assets:dim_emoji", "assets:matten_emoji", "assets:text_to_image_emoji", "assets:var_emoji",
    }  # fmt: skip
    assert set(library.bases()) == {"assets:text_to_image_emoji"}


def test_files_of_weights_are_listed_but_not_those_inside_runs_or_behind_links(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs", "a")
    (run / "checkpoints" / "step_00000003" / "model.safetensors").touch()
    (tmp_path / "other.safetensors").touch()
    (tmp_path / "runs" / "cat.safetensors").touch()
    (tmp_path / "runs" / "link.safetensors").symlink_to(tmp_path / "other.safetensors")
    assert list(Library(tmp_path / "runs").concepts()) == ["cat.safetensors"]


def test_curves_survive_a_line_that_is_being_written(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "loss": NaN, "mse": 3}', "[1]", '{"step": 3, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert curves(tmp_path) == {"loss": [(1, 2.0)], "mse": [(2, 3.0)]}


def test_long_curves_keep_their_last_point(tmp_path: Path) -> None:
    text = "".join(f'{{"step": {n}, "loss": {n}}}\n' for n in range(1, 1502))
    (tmp_path / "metrics.jsonl").write_text(text)
    points = curves(tmp_path)["loss"]
    assert len(points) <= 401
    assert points[-1] == (1501, 1501.0)


def test_previews_in_their_order_without_links(tmp_path: Path) -> None:
    for step in (20, 3, 100):
        (tmp_path / "samples" / f"step_{step:08d}").mkdir(parents=True)
        (tmp_path / "samples" / f"step_{step:08d}" / "grid.png").touch()
    (tmp_path / "samples" / "step_00000500").mkdir()
    (tmp_path / "samples" / "step_00000500" / "grid.png").symlink_to("/etc/passwd")
    assert [step for step, _ in previews(tmp_path)] == [3, 20, 100]


@LINUX
def test_a_process_of_another_start_gets_no_signal(sleeper: subprocess.Popen[bytes]) -> None:
    assert is_alive(record_of(sleeper.pid))
    for changes in ({"process": "12345"}, {"host": "another"}, {"pid": 1}, {"pid": "x"}, {"process": None}):
        assert not send_stop(record_of(sleeper.pid, **changes))
    assert sleeper.poll() is None


@LINUX
def test_a_process_of_ours_is_asked_to_stop_once(sleeper: subprocess.Popen[bytes]) -> None:
    record = record_of(sleeper.pid)
    assert send_stop(record)
    assert sleeper.wait(30) == -signal.SIGTERM
    assert not send_stop(record)


@LINUX
def test_a_killed_run_is_shown_as_gone(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    a_run(tmp_path, "a", state="running", **record_of(sleeper.pid))
    assert Library(tmp_path).run("a").state == "running"
    sleeper.kill()
    sleeper.wait()
    assert Library(tmp_path).run("a").state == "dead"
    assert not Jobs(Library(tmp_path)).stop("a")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".hidden", "-x", "--output=x", "a\nb", "x" * 300, "c:d", None]
)
def test_a_name_that_is_no_single_word_starts_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="one word"):
        Jobs(Library(tmp_path)).train(name, "quickstart/dim_digits", [])
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_starts_nothing(tmp_path: Path) -> None:
    a_run(tmp_path, "a")
    with pytest.raises(UsageError, match="already"):
        Jobs(Library(tmp_path)).train("a", "quickstart/dim_digits", [])


@LINUX
def test_a_job_is_known_to_another_server_and_tells_why_it_failed(tmp_path: Path) -> None:
    job = Jobs(Library(tmp_path)).start("a", ["train", "no_such_recipe", "--output", str(tmp_path / "a")])
    other = Jobs(Library(tmp_path))  # as after a restart
    assert [one.name for one in other.unborn()] == ["a"]
    end = time.monotonic() + 120
    while job.alive and time.monotonic() < end:
        os.waitpid(job.record["pid"], 0)
    assert not other.works_on("a")
    assert "there is no recipe 'no_such_recipe'" in other.last_words("a")
    other.forget("a")
    assert other.unborn() == []
