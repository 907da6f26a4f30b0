"""A run as a notebook shows it: how far it is, its last numbers, its newest pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import GenzooError
from genzoo.core.reading import read_bytes
from genzoo.core.run_folder import RunFolder, read_metrics

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData

OVERVIEWS = {".png": "png", ".gif": "gif"}
MAX_PICTURE = 4 * 1024**2  # bytes: a notebook keeps what it shows


def run_html(run: RunData) -> str:
    """A small table and a picture, everything escaped; of an open file, what it was made by."""
    rows = [("run", str(run.folder)), ("recipe", run.recipe.name), *_progress(run.folder)]
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(said)}</td></tr>'
        for name, said in rows
    )
    return f"<table>{cells}</table>{_picture(run.folder)}"


def _progress(folder: Path) -> Iterator[tuple[str, str]]:
    try:
        status = RunFolder(folder).status()
        logged = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").is_file() else []
    except GenzooError as error:  # a damaged file is told, and shows the rest all the same
        yield "state", str(error).partition("\n")[0]
        return
    if status:
        steps = f"step {status.get('step')} of {status.get('steps')}"
        reason = f": {status['reason']}" if "reason" in status else ""
        yield "state", f"{status.get('state')}, {steps}{reason}"
    last: dict[str, Any] = {}
    for row in logged:  # evaluations and held-out losses are not of every step
        last |= row
    yield from ((name, _short(value)) for name, value in last.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _picture(folder: Path) -> str:
    """The newest overview among the run's samples; nothing where there is none that is small enough."""
    found = [path for path in (folder / "samples").glob("**/grid.*") if path.suffix in OVERVIEWS]
    own = [path for path in found if path.is_file() and not path.is_symlink()]
    small = [path for path in own if path.stat().st_size <= MAX_PICTURE]
    if not small:
        return ""
    newest = max(small, key=lambda path: (path.stat().st_mtime_ns, path))
    data = base64.b64encode(read_bytes(newest)).decode()
    name = html.escape(newest.relative_to(folder).as_posix())
    kind = OVERVIEWS[newest.suffix]
    return f'<figure><img src="data:image/{kind};base64,{data}"><figcaption>{name}</figcaption></figure>'
