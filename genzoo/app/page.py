"""What the tabs share: the folder, its jobs, the worker, and a place for results as long as the server is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from genzoo.app.jobs import Jobs
from genzoo.app.library import Library
from genzoo.app.text import toast
from genzoo.app.worker.client import STOPPED, Worker
from genzoo.core.errors import GenzooError, UsageError
from genzoo.core.files import write_file
from genzoo.core.reading import read_bytes
from genzoo.data.image_decode import MAX_PIXELS

MAX_PICTURE = 64 * 1024**2  # bytes


@dataclass
class Page:
    """results: a folder of the server, removed when it ends."""

    library: Library
    jobs: Jobs
    worker: Worker
    results: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def new_place(self) -> Path:
        """A folder that nothing is in yet."""
        return self.results / f"{next(self._numbers):06d}"

    def shown(self, picture: Path) -> str | None:
        """A copy of a picture that the browser may ask for; None for what is no picture."""
        try:
            content = read_bytes(picture, "a picture", max_bytes=MAX_PICTURE)
            with Image.open(picture) as opened:
                small = opened.width * opened.height <= MAX_PIXELS
                kind = {"PNG": "png", "GIF": "gif", "JPEG": "jpg", "WEBP": "webp"}.get(str(opened.format))
        except (GenzooError, OSError, ValueError, SyntaxError):  # Pillow's words for damage
            return None
        if kind is None or not small:
            return None
        return str(write_file(self.new_place() / f"picture.{kind}", content, sync=False))


def complain(error: GenzooError) -> None:
    """An error as a short message on the page."""
    if str(error) == STOPPED:
        gr.Info("Stopped.")
        return
    fix = f"\n{error.fix}" if error.fix else ""
    gr.Warning(toast(f"{error.what}{fix}"), title="This did not work")


def a_text(value: object, what: str, *, longest: int = 2000) -> str:
    """A text that a browser sent. Raises UsageError for anything else."""
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        raise UsageError(f"{what} is a text of at most {longest} letters")
    return value


def a_number(value: object, what: str, least: float, most: float, *, whole: bool = True) -> Any:
    """A number that a browser sent. Raises UsageError outside the bounds."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or (whole and value != int(value)):  # type: ignore[operator,call-overload]
        raise UsageError(f"{what} is a {'whole ' if whole else ''}number from {least:g} to {most:g}")
    return int(value) if whole else float(value)  # type: ignore[call-overload,arg-type]
