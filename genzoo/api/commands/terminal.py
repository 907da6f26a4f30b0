"""What commands say: log lines, JSON, and errors without tracebacks."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from genzoo.core.errors import DataError, GenzooError, is_out_of_memory
from genzoo.core.processes import World
from genzoo.core.progress import doing


def report_error(error: Exception) -> int:
    """Print an error without traceback, and note it where torchrun looks; returns the exit code."""
    said, code = _answer(error)
    # bytes of file names and arguments that are no UTF-8 cannot be written to every stream
    said = said.encode("utf-8", "backslashreplace").decode()
    typer.echo(f"error: {said}", err=True)
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place:
        from genzoo.core.files import write_json

        extra = {"py_callstack": said, "timestamp": str(int(time.time())), "exit_code": code}
        message = {"message": f"{type(error).__name__}: {said}", "extraInfo": extra}
        with contextlib.suppress(DataError):
            write_json(place, {"message": message})
    return code


def _answer(error: Exception) -> tuple[str, int]:
    if isinstance(error, GenzooError):
        return str(error), error.exit_code
    text = str(error).strip().partition("\n")[0]
    if is_out_of_memory(error):
        said = text or type(error).__name__
        return f"out of memory: {said}\n  fix:   a smaller batch_size, block_size or model", 6
    if isinstance(error, ImportError):
        return f"a package is missing: {text}", 3
    if isinstance(error, UnicodeEncodeError) or text == "embedded null byte":
        return "a name or text holds bytes that are no letters\n  fix:   use other letters", 2
    if isinstance(error, OSError):
        return text, 4
    return f"{type(error).__name__}: {text}\n  fix:   --debug shows where; this is a bug", 1


def load_torch() -> None:
    """Import what computes, when all names have been looked at; whoever waits for it is told."""
    with doing("loading torch"), _nothing_collected():
        import torch  # noqa: F401


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """What an import makes stays: looking for what can go takes a tenth of its time, and more of it later."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


def log_to_terminal() -> None:
    """Progress of a command on stderr, from the main process alone."""

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(OSError):  # a terminal that was closed
                typer.echo(self.format(record), err=True)

    logger = logging.getLogger("genzoo")
    logger.handlers = [Echo()]
    logger.propagate = False
    logger.setLevel(logging.INFO if World.current().is_first else logging.ERROR)


def written(path: Path) -> dict[str, Any]:
    """What --json says of a file, or of a folder of files, that was written: sizes in bytes."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {
            "path": str(path),
            "files": {file.relative_to(path).as_posix(): file.stat().st_size for file in files},
        }
    return {"path": str(path), "bytes": path.stat().st_size}


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2))
