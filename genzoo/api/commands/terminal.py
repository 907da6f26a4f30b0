"""What commands share: log lines, JSON, KEY=VALUE arguments, and errors without tracebacks."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from genzoo.assets.shipped import is_shipped, shipped_folder
from genzoo.core.errors import DataError, GenzooError, UsageError, is_out_of_memory
from genzoo.core.limits import MAX_WORKERS
from genzoo.core.paths import exists, require_path
from genzoo.core.processes import World
from genzoo.core.progress import doing

# options of several commands
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace a file that is there already")]
Device = Annotated[str | None, typer.Option(help="such as cpu or cuda:1")]
AtOnce = Annotated[int, typer.Option("--batch-size", min=1)]
Workers = Annotated[
    int, typer.Option("--num-workers", min=0, max=MAX_WORKERS, help="processes that decode pictures")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Prune = Annotated[bool, typer.Option("--prune", help="remove entries that are not used any more")]

# options of sampling that hold for all samples, though they are lists
SHARED_LISTS = ("control_scale", "control_runs", "temperature")


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


def settings_from(texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE arguments as a dict, typed as a recipe types them."""
    from genzoo.core.recipe_source import parse_value
    from genzoo.core.recipe_tree import plain

    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{text[:80]!r} is not of the form key=value", fix="for example steps=50")
        read = plain(parse_value(value, key))
        if key in settings and settings[key] != read:
            raise UsageError(f"{key} is given twice: {settings[key]!r} and {read!r}", fix="give it once")
        settings[key] = read
    return settings


def asks_for_rows(given: Mapping[str, Any]) -> bool:
    """Whether an option of sampling is a list with a value for each sample, which says how many there are."""
    return any(isinstance(value, list) for key, value in given.items() if key not in SHARED_LISTS)


def read_controls(texts: list[str] | None) -> str | dict[str, str] | None:
    """A control picture, or several as {name of an extractor: picture} from NAME=PICTURE."""
    from genzoo.core.registry import CONTROLS

    split = [(text, *text.partition("=")[::2]) for text in texts or []]
    named = {name: path for text, name, path in split if name in CONTROLS and not exists(text)}
    if not split:
        return None
    if len(named) == len(split):
        return named
    if len(split) == 1:
        return split[0][0]
    raise UsageError(
        f"{len(split)} controls need a name each, and no name twice",
        fix=f"write --control canny=a.png --control hed=b.png; names are {', '.join(CONTROLS)}",
    )


def read_labels(texts: list[str] | None) -> int | str | list[int | str] | None:
    """Class labels: numbers, also between commas, and names, which the run knows."""
    labels: list[int | str] = []
    for text in texts or []:
        parts = text.split(",")
        numbers = all(part.strip().isdecimal() for part in parts)
        labels += [int(part) for part in parts] if numbers else [text]
    return labels if len(labels) > 1 else next(iter(labels), None)


def require_run(run: str | Path, what: str = "a run folder") -> None:
    """Raise an error for a run that is not there, before anything heavy is imported."""
    if is_shipped(run):
        shipped_folder(run)
        return
    if not str(run).startswith("hf:/"):
        require_path(run, what, fix="name the --output of a training, or hf://user/repo")


def load_torch() -> None:
    """Import what computes, when all names have been looked at; whoever waits for it is told."""
    with doing("loading torch"):
        import torch  # noqa: F401


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
