"""The run folder: one writer at a time, and small files that say what was run, where, and how it went.

recipe.yaml  command.txt  env.json  metrics.jsonl  status.json  tensorboard/  samples/  checkpoints/
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from genzoo.core.claims import claim_folder, refuse_links, require_utf8, strangers
from genzoo.core.environment import environment
from genzoo.core.errors import DataError, RunLockedError, RunLostError
from genzoo.core.files import disk_errors, open_log, write_file, write_json
from genzoo.core.leftovers import remove_leftovers
from genzoo.core.process_identity import WINDOWS, process_start
from genzoo.core.reading import read_bytes, read_json, read_text

_REFUSED = "the run folder cannot be written"
HOLDER = ".lock-holder"
MAX_METRICS = 4 * 1024**3  # bytes: a line of 200 for each of twenty million steps
LOGS = (".log", ".out", ".err", ".txt")
WRITTEN = (
    ".lock", HOLDER, "command.txt", "metrics.jsonl", "recipe.yaml", "env.json", "status.json", "report.json",
    "trackers.json", "README.md", "checkpoints", "best", "samples", "evaluation", "tensorboard", "variants",
    "wandb",
)  # fmt: skip


class RunFolder:
    """Paths and small files of one run. Writing them is for the holder of `lock()`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"
        self.metrics = self.path / "metrics.jsonl"
        self._started = _now()
        self._lock_file: tuple[int, int] | None = None

    def require_own(self) -> None:
        """Raise UsageError when the folder holds what no run left there, or links in the place of its files.

        Logs of schedulers and shells may lie in it: they are there before the run is.
        """
        require_utf8(self.path)
        refuse_links(self.path, WRITTEN)
        is_file = self.path.exists() and not self.path.is_dir()
        if is_file or any(name for name in strangers(self.path) if not name.endswith(LOGS)):
            claim_folder(self.path, what="a run", is_ours=lambda path: self._is_run())

    def _is_run(self) -> bool:
        return self.has_run() or (self.path / HOLDER).exists() or (self.path / ".lock").exists()

    def has_run(self) -> bool:
        """Whether an earlier run left something here that a new one would mix with."""
        return self.metrics.exists() or self.checkpoints.exists()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer of this folder, on this machine, until the block or the process ends.

        Raises RunLockedError at once, naming the holder's process and host.
        """
        require_utf8(self.path)
        refuse_links(self.path, WRITTEN)
        lock = FileLock(self.path / ".lock")
        with disk_errors(self.path, _REFUSED):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise self._held() from None
        try:
            self._lock_file = _identity(self.path / ".lock")
            self._tidy()
            # beside the lock: where locks are mandatory, nobody else could read what stands in it
            holder = f"pid {os.getpid()} on {socket.gethostname()} since {_now()}"
            write_file(self.path / HOLDER, holder + "\n", sync=False)
            yield
        finally:
            self._lock_file = None
            lock.release()

    def require_held(self) -> None:
        """Raise RunLostError when the folder is no longer the one that was locked.

        It was removed, renamed or replaced meanwhile, and what is there now may be another process's run.
        The lock is held open, so its number on the disk is given to no other file.
        """
        if self._lock_file is not None and _identity(self.path / ".lock") != self._lock_file:
            raise RunLostError(
                "the run folder was removed or replaced while it was being written",
                where=str(self.path),
                why="its lock is not the file that this process holds; nothing more is written",
                fix="start again with a folder of its own; one that was renamed goes on where it is now",
            )

    def _tidy(self) -> None:
        """Remove what killed processes left here and one folder below."""
        below = [path for path in self.path.iterdir() if path.is_dir() and not path.is_symlink()]
        for folder in (self.path, *below):
            remove_leftovers(folder, only_writer=folder == self.checkpoints)

    def _held(self) -> RunLockedError:
        holder = "an unknown process"
        with contextlib.suppress(DataError):
            holder = read_text(self.path / HOLDER).strip() or holder
        return RunLockedError(
            "another process is writing to this run folder",
            where=str(self.path),
            why=f"it is held by {holder}",
            fix="wait for it or stop it, or choose another --output",
        )

    def describe(self, *, recipe_text: str = "", **machine: Any) -> None:
        """Record what is run and on what: recipe.yaml, command.txt (a line for each start), env.json.

        machine: as in `environment`.
        """
        if recipe_text:
            write_file(self.path / "recipe.yaml", recipe_text)
        with disk_errors(self.path, _REFUSED), open_log(self.path / "command.txt") as file:
            file.write(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) + "\n")
        write_json(self.path / "env.json", environment(**machine))

    def set_status(self, state: str, *, step: int, steps: int, **details: Any) -> None:
        """Replace status.json. state: running, finished, interrupted or failed."""
        self.require_held()
        record = {"state": state, "step": step, "steps": steps, "updated": _now(), "pid": os.getpid()}
        process = {
            "host": socket.gethostname(),
            "started": self._started,
            "process": process_start(os.getpid()),
        }
        write_json(self.path / "status.json", record | process | details)

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty when there is none.

        A run that says it is running, and whose process on this machine is gone, is "dead".
        """
        found = self._read_status()
        here = found.get("host") == socket.gethostname() and isinstance(found.get("pid"), int)
        if found.get("state") == "running" and here and not WINDOWS:
            process = process_start(found["pid"])
            if process is None or found.get("process") not in (None, process):
                found |= {"state": "dead", "reason": f"its process, pid {found['pid']}, is gone"}
        return found

    def _read_status(self) -> dict[str, Any]:
        path = self.path / "status.json"
        if not path.exists():
            return {}
        found = read_json(path, "status.json")
        return found if isinstance(found, dict) else {}


class MetricsLog:
    """Append-only metrics.jsonl, one JSON object a line, no step twice."""

    def __init__(self, path: Path, *, resumed_step: int) -> None:
        """Open for appending; lines after `resumed_step`, or cut short by a kill, are dropped."""
        self.path = path
        with disk_errors(path, _REFUSED):
            if path.exists():
                write_file(path, "".join(_lines_up_to(path, resumed_step)))
            self._file = open_log(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and hand it to the operating system."""
        with disk_errors(self.path, _REFUSED):
            self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Close the file; a full disk was reported by `append` already."""
        with contextlib.suppress(OSError):
            self._file.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """What stays the same of a file as long as it is there, whatever happens to names."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line cut short by a kill is left out."""
    return [json.loads(line) for line in _lines_up_to(path, sys.maxsize)]


def _lines_up_to(path: Path, step: int) -> Iterator[str]:
    for line in read_bytes(path, max_bytes=MAX_METRICS).decode("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            if json.loads(line)["step"] <= step:
                yield line + "\n"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
