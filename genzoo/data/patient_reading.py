"""Reading in a thread of its own, so that whoever waits for it can stop waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any


def in_thread(
    batches: Iterator[Any], seconds: float, gone: Callable[[], Exception]
) -> Generator[Any, None, None]:
    """What `batches` gives, each read by one other thread in at most `seconds`.

    gone: makes the error for a batch that does not come. A thread that hangs in the system cannot be ended;
    it is a daemon, so the process can.
    """
    asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
    given: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def read() -> None:
        while asked.get():
            try:
                given.put((next(batches), None))
            except BaseException as error:  # raised again where it is waited for
                given.put((None, error))

    threading.Thread(target=read, daemon=True, name="genzoo-reading").start()
    try:
        while True:
            asked.put(True)
            try:
                batch, error = given.get(timeout=seconds)
            except queue.Empty:
                raise gone() from None
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield batch
    finally:
        asked.put(False)
