"""Trainings that the page starts: `genzoo` processes that outlive it, known by number and start time.

`.page/NAME.json` below the page's folder keeps the command and the process until the run's own status.json
knows it, `.page/NAME.log` what it prints. Nothing here asks for a run's lock: a run that starts at that
instant would be refused.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genzoo.app.library import Library, Run
from genzoo.core.claims import is_name
from genzoo.core.environment import STARTED_IN
from genzoo.core.errors import GenzooError, UsageError
from genzoo.core.files import open_log, write_json
from genzoo.core.plugins import loaded_modules
from genzoo.core.process_identity import process_start
from genzoo.core.reading import read_record, read_text

PLACE = ".page"
LAST_LINES = 12


@dataclass(frozen=True)
class Job:
    """name: of its run, or on the page.   record: its command, and the process that was started."""

    name: str
    record: Mapping[str, Any]

    @property
    def alive(self) -> bool:
        return is_alive(self.record)


def is_alive(record: Mapping[str, Any]) -> bool:
    """Whether the process of a record (pid, process, host) runs on this machine and is still the same one."""
    pid, start = record.get("pid"), record.get("process")
    if record.get("host") != socket.gethostname() or not isinstance(pid, int) or pid < 2 or not start:
        return False
    return process_start(pid) == start


def send_stop(record: Mapping[str, Any]) -> bool:
    """SIGTERM to the process of a record, if it is still that one: training saves and ends.

    Returns whether it was sent. A number that belongs to another process by now gets nothing.
    """
    if not is_alive(record):
        return False
    pid = record["pid"]
    if sys.platform != "linux":
        os.kill(pid, signal.SIGTERM)
        return True
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_alive(record):  # between the look and the handle it may have gone
            return False
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


class Jobs:
    """The processes started for runs below one folder."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.place = library.folder / PLACE
        self._children: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, arguments: Sequence[str], *, cwd: Path | None = None, kind: str = "run"
    ) -> Job:
        """Start `genzoo ARGUMENTS` for the run of a name. Raises UsageError while another one works on it.

        kind: "run", or what else it is, such as "evaluation".
        """
        self._require_free(name)
        modules = [text for module in loaded_modules() for text in ("--import", module)]
        command = [sys.executable, "-m", "genzoo", *modules, *arguments]
        self.place.mkdir(parents=True, exist_ok=True)
        with open_log(self._file(name, "log")) as log:
            log.write(f"$ genzoo {shlex.join(arguments)}\n")
            log.flush()
            child = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._children.append(child)
        process = {"pid": child.pid, "process": process_start(child.pid), "host": socket.gethostname()}
        record = {"name": name, "kind": kind, "command": list(arguments), "started": time.time(), **process}
        write_json(self._file(name, "json"), record)
        return Job(name, record)

    def train(self, name: str, recipe: str, overrides: Sequence[str]) -> Job:
        """Start a new run. Raises UsageError for a name that is none, or taken."""
        target = self.new_folder(name)
        return self.start(name, ["train", recipe, *overrides, "--output", str(target)])

    def resume(self, run: Run, overrides: Sequence[str] = ()) -> Job:
        """Go on with a run where it stopped, in the folder where it was started."""
        began = read_record(run.path / "env.json").get(STARTED_IN)
        cwd = Path(began) if isinstance(began, str) and Path(began).is_dir() else None
        recipe = str(run.path / "recipe.yaml")
        return self.start(run.name, ["train", recipe, *overrides, "--output", str(run.path)], cwd=cwd)

    def stop(self, name: str) -> bool:
        """Ask the run of a name to save and stop; whether there was something to ask."""
        return any(send_stop(record) for record in self._records(name) if is_alive(record))

    def works_on(self, name: str) -> bool:
        """Whether a process is working on the run of a name."""
        return any(map(is_alive, self._records(name)))

    def new_folder(self, name: str) -> Path:
        """Where a run of a new name goes. Raises UsageError."""
        if not isinstance(name, str) or not is_name(name):
            raise UsageError("a run's name is one word without slashes", fix="such as my-first-run")
        target = self.library.folder / name
        if target.exists() or target.is_symlink() or self.works_on(name):
            raise UsageError(f"there is something called {name} already", fix="choose another name")
        return target

    def unborn(self) -> list[Job]:
        """Jobs of which no run knows yet: they begin, or ended before there was one."""
        self._reap()
        known = {run.name for run in self.library.runs()}
        return [job for job in self.of_kind("run") if job.name not in known]

    def of_kind(self, kind: str) -> list[Job]:
        """All that was started of a kind, the latest first."""
        found = [self._job(path.stem) for path in self.place.glob("*.json")] if self.place.is_dir() else []
        jobs = [job for job in found if job is not None and job.record.get("kind", "run") == kind]
        return sorted(jobs, key=lambda job: str(job.record.get("started", "")), reverse=True)

    def forget(self, name: str) -> None:
        """Remove the record of a job that ended before there was a run."""
        with contextlib.suppress(OSError):
            self._file(name, "json").unlink()

    def last_words(self, name: str) -> str:
        """The end of what a job printed."""
        try:
            said = read_text(self._file(name, "log"), what="a log", max_bytes=64 * 1024**2)
        except GenzooError:
            return ""
        return "\n".join(said.splitlines()[-LAST_LINES:])

    def _records(self, name: str) -> list[Mapping[str, Any]]:
        job = self._job(_key(name))
        found: list[Mapping[str, Any]] = [] if job is None else [job.record]
        return [*(run.status for run in self.library.runs() if run.name == name), *found]

    def _job(self, key: str) -> Job | None:
        record = read_record(self.place / f"{key}.json")
        name = record.get("name")
        return Job(name, record) if isinstance(name, str) and _key(name) == key else None

    def _require_free(self, name: str) -> None:
        if self.works_on(name):
            raise UsageError(f"{name} is being trained already", fix="stop it first, or choose another name")

    def _reap(self) -> None:
        """Processes that ended leave the table."""
        self._children = [child for child in self._children if child.poll() is None]

    def _file(self, name: str, kind: str) -> Path:
        return self.place / f"{_key(name)}.{kind}"


def _key(name: str) -> str:
    """A run's name, which may hold folders, as one name of a file."""
    return name.replace("%", "%25").replace("/", "%2F")
