"""Signals that end a run politely: the step is finished, a checkpoint committed, the exit code says why."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from genzoo.core.errors import Interrupted

# those that the system has, the first of several first: Windows knows no SIGUSR1
STOP_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGUSR1") if name in signal.Signals.__members__
)


def interrupted(signum: int, *, step: int, checkpoint: Path | None) -> Interrupted:
    """The error that ends a run which was asked to stop, after its checkpoint was committed."""
    return Interrupted(
        f"stopped by {signal.Signals(signum).name} after step {step}; a checkpoint was saved",
        signum=signum,
        where=str(checkpoint),
        fix="run the same command again to continue",
    )


class StopSignals:
    """Within the block the first of SIGTERM, SIGINT, SIGUSR1 is noted in `received`; a second ends all.

    grace: seconds in which further signals are the same request: launchers repeat the terminal's Ctrl-C.
    Outside the main thread (some notebooks) no handler can be set, and signals do what they always do.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self.received: int | None = None
        self.grace = grace
        self._noted_at = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._noted_at = signum, time.monotonic()
        elif time.monotonic() - self._noted_at >= self.grace:
            os._exit(128 + signum)
