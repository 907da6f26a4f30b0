"""What the tabs share: the folder, its jobs, the worker, and a place for results as long as the server is."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import gradio as gr
from PIL import Image

from genzoo.app.jobs import Jobs
from genzoo.app.library import Library
from genzoo.app.text import toast
from genzoo.app.worker.client import STOPPED, Worker
from genzoo.core.errors import GenzooError, UsageError
from genzoo.core.files import write_file, write_zip
from genzoo.core.reading import read_bytes
from genzoo.data.image_decode import MAX_PIXELS

MAX_PICTURE = 64 * 1024**2  # bytes
KINDS = {"PNG": "png", "GIF": "gif", "JPEG": "jpg", "WEBP": "webp"}
"""What is shown, by Pillow's name for it."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}


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
            with Image.open(picture, formats=list(KINDS)) as opened:
                small = opened.width * opened.height <= MAX_PIXELS
                kind = KINDS[str(opened.format)]
        except (GenzooError, OSError, ValueError, SyntaxError):  # Pillow's words for damage
            return None
        if not small:
            return None
        return str(write_file(self.new_place() / f"picture.{kind}", content, sync=False))


def note(
    text: str, name: str | None, *, lines: int = 1, most: int = 20, also: str = "", visible: bool = True
) -> gr.Textbox:
    """A line of words on the page: always shown as text.   also: a further class."""
    return gr.Textbox(
        text,
        show_label=False,
        container=False,
        interactive=False,
        lines=lines,
        max_lines=most,
        visible=visible,
        elem_classes=["note", *([also] if also else [])],
        elem_id=name,
    )


def archived(target: Path, root: Path, files: Sequence[str | Path]) -> Path:
    """A ZIP of files under their names below `root`."""

    def put(path: Path) -> Callable[[IO[bytes]], object]:
        def write(member: IO[bytes]) -> None:
            with path.open("rb") as file:
                shutil.copyfileobj(file, member)

        return write

    members = {Path(path).relative_to(root).as_posix(): put(Path(path)) for path in files}
    return write_zip(target, members)


def complain(error: GenzooError) -> None:
    """An error as a short message on the page."""
    if str(error) == STOPPED:
        gr.Info("Stopped.")
        return
    fix = f"\n{error.fix}" if error.fix else ""
    gr.Warning(toast(f"{error.what}{fix}"), title="This did not work")


def a_choice(value: object, known: Container[str], what: str) -> str:
    """One of the listed names that a browser sent. Raises UsageError for anything else."""
    if not isinstance(value, str) or value not in known:
        raise UsageError(f"there is no such {what}", fix="choose from the list")
    return value


def texts(value: object) -> list[str]:
    """The texts in a list that a browser sent; nothing out of anything else."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


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
