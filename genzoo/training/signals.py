"""Signals that end a run politely: the step is finished, a checkpoint committed, the exit code says why."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from genzoo.core.errors import Interrupted
from genzoo.core.processes import launcher

# those that the system has, the first of several first: Windows knows no SIGUSR1
STOP_SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
    if name in signal.Signals.__members__
)
TIMES = 3  # so many Ctrl-C end the process without a checkpoint


def interrupted(signum: int, *, step: int, checkpoint: Path | None) -> Interrupted:
    """The error that ends a run which was asked to stop, after its checkpoint was committed."""
    return Interrupted(
        f"stopped by {signal.Signals(signum).name} after step {step}; a checkpoint was saved"
        if checkpoint is not None
        else f"stopped by {signal.Signals(signum).name} before the first step; nothing was lost",
        signum=signum,
        where=None if checkpoint is None else str(checkpoint),
        fix="run the same command again to continue",
    )


class StopSignals:
    """Within the block the first of STOP_SIGNALS is noted in `received`, and a line says so.

    A second one changes nothing: the step is finished and saved. The third Ctrl-C ends the process at once.
    grace: seconds in which further signals are the same request: launchers repeat the terminal's Ctrl-C.
    speaks: whether this process prints. Outside the main thread (some notebooks) no handler can be set, and
    signals do what they always do; a hang-up that the caller ignores, as nohup does, stays ignored.
    """

    def __init__(self, grace: float = 0.0, *, speaks: bool = True) -> None:
        self._received: int | None = None
        self._launcher = launcher()
        self.grace, self.speaks = grace, speaks
        self._noted_at = 0.0
        self._presses = 0
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def received(self) -> int | None:
        """The first signal, if there was one; SIGTERM when torchrun is gone, which would have sent it."""
        if self._received is None and self._launcher not in (None, os.getppid()):
            self._received, self._noted_at = signal.SIGTERM, time.monotonic()
            self._say("torchrun is gone: the run stops after this step, and a checkpoint is saved")
        return self._received

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            hang_up = signal.Signals.__members__.get("SIGHUP")
            ignored = {hang_up} if hang_up and signal.getsignal(hang_up) is signal.SIG_IGN else set()
            numbers = [number for number in STOP_SIGNALS if number not in ignored]
            self._previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        name = signal.Signals(signum).name
        if name == "SIGHUP":
            _leave_terminal()
        if self._received is None:
            self._received, self._noted_at = signum, time.monotonic()
            self._presses = int(signum == signal.SIGINT)
            self._say(f"{name}: the run stops after this step, and a checkpoint is saved")
        elif time.monotonic() - self._noted_at >= self.grace:
            self._presses += signum == signal.SIGINT
            if self._presses >= TIMES:
                os._exit(128 + signum)
            self._say(f"{name}: still finishing the step; a third Ctrl-C ends at once, without a checkpoint")

    def _say(self, text: str) -> None:
        if self.speaks:
            with contextlib.suppress(OSError):  # not through a stream, which the signal may have interrupted
                os.write(2, f"\n{text}\n".encode())


def _leave_terminal() -> None:
    """The terminal is gone, and every word to it would be an error in the middle of saving."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
