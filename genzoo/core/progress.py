"""Progress of long work: bars on a terminal and in a notebook that has ipywidgets; elsewhere few lines.

A line is written when a stage begins, now and then, and when it ends; in a notebook the last one stays.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from genzoo.core.processes import World

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)
REFRESH = 0.25  # seconds between two moves of a bar
PATIENCE = 1.0  # seconds that pass before one wants to know what is being done


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Log what is being done once it has taken a second: reading, building and other steps without count."""
    timer = threading.Timer(PATIENCE, logger.info, ("%s ...", what))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def counting(what: str, every: float = 10.0) -> Iterator[Callable[..., None]]:
    """A function to call at each of many events whose number nobody knows; now and then it logs their count.

    what: with a place for the number, such as "sampling: the network ran {} times".
    """
    begun = said = time.monotonic()
    count = 0

    def one(*_: object) -> None:
        nonlocal count, said
        count += 1
        now = time.monotonic()
        if now - said >= every:
            said = now
            logger.info("%s, %s so far", what.format(f"{count:,}"), clock(now - begun))

    yield one


class Progress:
    """Called with (stage, done, total, more text), as often as one likes; the first process alone shows it.

        with Progress() as progress:
            work(progress=progress.of("sampling"))

    line_seconds: between two lines where there is no terminal.
    """

    def __init__(self, console: Console | None = None, *, line_seconds: float = 10.0) -> None:
        from rich.console import Console

        console = console or Console(stderr=True)
        self._bars = _bars(console) if _shows_bars(console) else None
        self._notebook: dict[str, Any] | None = {} if console.is_jupyter else None  # a stage's line there
        self._between = REFRESH if self._bars else line_seconds
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, tuple[float, int]] = {}  # when a stage was shown last, and how far it was
        self._silent = not World.current().is_first

    def __enter__(self) -> Progress:
        if self._bars and not self._silent:
            self._bars.start()
        return self

    def __exit__(self, *reason: object) -> None:
        if self._bars:
            self._bars.stop()

    def of(self, stage: str) -> Callable[[int, int], None]:
        """A function (done, total) that tells of one stage."""
        return lambda done, total: self(stage, done, total)

    def is_due(self, stage: str) -> bool:
        """Whether it is time to show a stage again, so that no text need be made in vain."""
        return stage not in self._said or time.monotonic() - self._said[stage][0] >= self._between

    def __call__(self, stage: str, done: int, total: int, text: str = "") -> None:
        ends = done == total and self._said.get(stage, (0.0, -1))[1] != done
        if self._silent or not (ends or self.is_due(stage)):
            return
        if self._bars:
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total, text=text)
            self._bars.update(self._tasks[stage], completed=done, total=total, text=text)
        else:
            parts = (f"{stage} {done}/{total}", text, self._left(stage, done, total))
            self._say(stage, "  ".join(part for part in parts if part))
        self._said[stage] = time.monotonic(), done

    def _say(self, stage: str, line: str) -> None:
        if self._notebook is None:
            logger.info("%s", line)
            return
        text = {"text/plain": line}  # a notebook shows no log unless it was asked to
        if stage in self._notebook:
            self._notebook[stage].update(text, raw=True)
        else:
            display: Any = importlib.import_module("IPython.display").display
            self._notebook[stage] = display(text, raw=True, display_id=True)

    def _left(self, stage: str, done: int, total: int) -> str:
        """The time left, at the pace since the last line."""
        since, before = self._said.get(stage, (0.0, done))
        if done <= before:
            return ""
        return f"ETA {clock((time.monotonic() - since) / (done - before) * (total - done))}"


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _shows_bars(console: Console) -> bool:
    # without ipywidgets rich would warn in every cell, and show nothing
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


def _bars(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    counts = TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn()
    more = TextColumn("{task.fields[text]}"), TextColumn("ETA"), TimeRemainingColumn()
    return Bars(*counts, *more, console=console, refresh_per_second=4)
