"""What a long command says: bars on a terminal, few lines elsewhere, and nothing from the other processes."""

from __future__ import annotations

import io
import logging
import sys
import types

import pytest
from rich.console import Console

from genzoo.core import progress as module
from genzoo.core.progress import Progress, clock, counting


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: time[0])
    return time


def test_elsewhere_a_line_begins_goes_on_now_and_then_and_ends(
    now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    file = io.StringIO()
    with (
        caplog.at_level(logging.INFO),
        Progress(Console(file=file, force_terminal=False), line_seconds=10.0) as progress,
    ):
        told = progress.of("sampling")
        for done in (1, 2, 3, 4, 5, 6, 7):
            told(done, 7)
            now[0] += 4.0
        told(7, 7)
        progress("reference", 1, 3, "of 2 kinds")
    # 1 at once, 4 after twelve seconds, 7 because it is the end
    assert caplog.messages == [
        "sampling 1/7",
        "sampling 4/7  ETA 0:12",
        "sampling 7/7  ETA 0:00",
        "reference 1/3  of 2 kinds",
    ]
    assert file.getvalue() == ""


def test_on_a_terminal_each_stage_has_a_bar(caplog: pytest.LogCaptureFixture) -> None:
    file = io.StringIO()
    with (
        caplog.at_level(logging.INFO),
        Progress(Console(file=file, force_terminal=True, width=120)) as progress,
    ):
        progress("reading", 3, 9)
        progress("judging", 2, 2, "so far")
    shown = file.getvalue()
    assert all(text in shown for text in ("reading", "3/9", "judging", "2/2", "so far"))
    assert caplog.messages == []


def test_a_notebook_without_widgets_shows_lines_and_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    lines: list[list[str]] = []

    class Line:
        def __init__(self, text: dict[str, str], **how: bool) -> None:
            lines.append([text["text/plain"]])
            self.place = lines[-1]
            assert how == {"raw": True, "display_id": True}

        def update(self, text: dict[str, str], **how: bool) -> None:
            self.place.append(text["text/plain"])

    display = types.ModuleType("IPython.display")
    display.display = Line  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO), Progress(Console(force_jupyter=True)) as progress:
        progress("step", 1, 2, "loss [0.5]")
        progress("step", 2, 2)
        progress("sampling", 1, 7)
    assert lines == [["step 1/2  loss [0.5]", "step 2/2  ETA 0:00"], ["sampling 1/7"]]
    assert caplog.messages == []
    assert not recwarn.list


@pytest.mark.parametrize("terminal", [True, False])
def test_only_the_first_process_shows_anything(
    terminal: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    file = io.StringIO()
    with caplog.at_level(logging.INFO), Progress(Console(file=file, force_terminal=terminal)) as progress:
        progress("sampling", 1, 1)
    assert "sampling" not in file.getvalue()
    assert caplog.messages == []


def test_clock_reads_like_a_clock() -> None:
    assert [clock(s) for s in (5, 65, 3723.4)] == ["0:05", "1:05", "1:02:03"]


def test_events_without_a_known_number_are_counted_now_and_then(
    now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), counting("sampling: the network ran {} times") as one:
        for _ in range(1205):
            one("module", "inputs")
            now[0] += 1 / 64
    assert caplog.messages == ["sampling: the network ran 641 times, 0:10 so far"]
