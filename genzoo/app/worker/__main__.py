"""`python -m genzoo.app.worker`: requests as lines of JSON on stdin, answers on stdout, until stdin ends.

{"id": 1, "what": "sample", "given": {...}} is answered by lines {"id": 1, "progress": [3, 16]} and one with
"done" or "error". Sampling runs in one thread, quick questions in another, so that a form need not wait for
pictures.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from genzoo.core.plugins import load_module

SLOW = ("sample", "merge", "export", "compare", "control")


class Answers:
    """Writes whole lines, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def write(self, number: int, **content: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps({"id": number, **content}, default=str) + "\n")
            self._stream.flush()


def _answer(request: dict[str, Any], answers: Answers) -> None:
    from genzoo.app.worker.acts import ACTS
    from genzoo.core.errors import GenzooError, is_out_of_memory

    number = request["id"]
    try:
        act = ACTS[request["what"]]
        done = act(progress=lambda *counts: answers.write(number, progress=counts), **request["given"])
        answers.write(number, done=done)
    except GenzooError as error:
        answers.write(number, error=error.what, why=error.why, fix=error.fix)
    except Exception as error:  # whatever a library raises is told, and the next request is answered
        small = " Try fewer pictures." if is_out_of_memory(error) else ""
        answers.write(number, error=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}{small}")


def main() -> None:
    """Answer until the page's process goes away."""
    for module in sys.argv[2::2]:  # --import MODULE ...
        load_module(module)
    # whatever prints goes to the log, not among the answers
    answers = Answers(io.TextIOWrapper(io.BufferedWriter(io.FileIO(os.dup(1), "w")), encoding="utf-8"))
    os.dup2(2, 1)
    slow, quick = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    quick.submit(__import__, "genzoo.app.worker.acts")  # torch, before anybody asks
    for line in sys.stdin:
        request = json.loads(line)
        (slow if request["what"] in SLOW else quick).submit(_answer, request, answers)
    os._exit(0)  # nobody is left to hear of what is still being sampled


if __name__ == "__main__":
    main()
