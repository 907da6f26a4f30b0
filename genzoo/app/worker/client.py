"""The page's end of the worker: started with the first visit, again when it ends. Imports no torch."""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genzoo.core.errors import GenzooError
from genzoo.core.files import open_log
from genzoo.core.plugins import loaded_modules

STOPPED = "stopped"


class WorkError(GenzooError):
    """What the worker answered in place of a result."""


class Worker:
    """One process for all users.   log: a file for what it prints."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._waiting: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._numbers = itertools.count()

    def warm(self) -> None:
        """Start it, so that the first request finds everything imported."""
        with self._lock:
            self._running()

    def ask(self, what: str, **given: Any) -> Any:
        """The result of one act. Raises WorkError with what the worker says."""
        for kind, value in self.steps(what, **given):
            if kind == "done":
                return value
        raise WorkError(STOPPED)

    def steps(self, what: str, **given: Any) -> Iterator[tuple[str, Any]]:
        """("progress", [done, total]) as often as it is told, then ("done", result). Raises WorkError."""
        number, answers = next(self._numbers), queue.Queue[dict[str, Any]]()
        with self._lock:
            process = self._running()
            self._waiting[number] = answers
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps({"id": number, "what": what, "given": given}) + "\n")
                process.stdin.flush()
            except OSError:
                answers.put({"error": STOPPED})
        try:
            while True:
                answer = answers.get()
                if "error" in answer:
                    raise WorkError(answer["error"], why=answer.get("why"), fix=answer.get("fix"))
                kind = "done" if "done" in answer else "progress"
                yield kind, answer[kind]
                if kind == "done":
                    return
        finally:
            self._waiting.pop(number, None)

    def stop(self) -> None:
        """End it with all it is doing; those who wait are told "stopped"."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            imports = [text for module in loaded_modules() for text in ("--import", module)]
            command = [sys.executable, "-m", "genzoo.app.worker", *imports]
            with open_log(self._log) as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    encoding="utf-8",
                )
            threading.Thread(target=self._read, args=[self._process], daemon=True).start()
        return self._process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            waiting = self._waiting.get(answer["id"])
            if waiting is not None:
                waiting.put(answer)
        with self._lock:
            if process is self._process or self._process is None:
                for waiting in list(self._waiting.values()):
                    waiting.put({"error": STOPPED})
