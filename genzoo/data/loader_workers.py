"""Loader workers: deaf to the signals that stop a run, watched while they read, and gone at the end.

Every loader of the library is made here, so that a worker may be killed at any moment without more harm than
the error that says so.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import signal
import time
from collections.abc import Generator, Iterator
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from types import FunctionType
from typing import Any

import torch
from torch.utils.data import DataLoader

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import KnowsPath
from genzoo.core.errors import DataError
from genzoo.data.patient_reading import in_thread

NOTHING = -1
DEAF_TO = tuple(
    signal.Signals[name]
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
    if name in signal.Signals.__members__
)
LOOK = 5.0  # seconds between two looks at workers that give nothing
PATIENCE = 2.0  # seconds for a worker to end by itself


class LoaderError(DataError):
    """A worker was killed, or does not answer; what was trained so far is sound."""


class Workers:
    """The workers of one DataLoader.

    dataset: names its items in errors, where it can.   num: 0 for none, when this process reads.
    timeout: seconds to wait for a batch; None waits for ever.
    reading: (workers,) int64, the item that each of them reads, where they note it.
    """

    def __init__(self, dataset: Any, num: int, timeout: float | None = None) -> None:
        self.dataset, self.num, self.timeout = dataset, num, timeout
        # the loader's own timeout
        self.look = 0.0 if not num else LOOK if timeout is None else min(LOOK, timeout)
        self.reading = torch.full((max(num, 1),), NOTHING).share_memory_()

    def loader(self, items: Any, **options: Any) -> DataLoader[Any]:
        """torch's loader over `items` with these workers."""
        return DataLoader(
            items,
            num_workers=self.num,
            timeout=self.look,
            generator=torch.Generator(),  # the loader draws a worker seed: never from the global generator
            multiprocessing_context=_context() if self.num else None,
            **options,
        )

    @contextlib.contextmanager
    def started(self, loader: DataLoader[Any]) -> Iterator[Iterator[Any]]:
        """The loader's batches, from workers that end with the block."""
        with _no_handler_of_torch():
            yield from self._started(loader)

    def _started(self, loader: DataLoader[Any]) -> Iterator[Iterator[Any]]:
        before = set(multiprocessing.active_children())
        with _signals_held():
            batches = iter(loader)
        processes = [child for child in multiprocessing.active_children() if child not in before]
        watched = self._watched(batches, processes)
        try:
            yield watched
        finally:
            watched.close()
            del watched, batches  # the loader tells its workers to end when nobody holds its iterator
            for process in processes:
                process.join(PATIENCE if process.is_alive() else 0)
                if process.is_alive():  # deaf, or stopped by the system
                    process.kill()
                    process.join(PATIENCE)

    def _watched(self, batches: Iterator[Any], processes: list[BaseProcess]) -> Generator[Any, None, None]:
        if not self.num and self.timeout is not None:
            yield from in_thread(batches, self.timeout, self._hanging)
            return
        waited_since = time.monotonic()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if not self.num or not str(error).startswith("DataLoader"):
                    raise  # raised by the data, "Caught ... in DataLoader worker"
                if all(process.exitcode is None for process in processes):
                    if self.timeout is not None and time.monotonic() - waited_since >= self.timeout:
                        raise self._hanging() from error
                    continue  # it looked, as it does every few seconds, whether all workers are there
                raise self._error(processes) from error
            except (EOFError, OSError) as error:  # what a worker holds is asked for when it is gone
                is_of_data = not self.num or str(error).startswith("Caught ")
                if is_of_data or not _ended(processes):
                    raise
                raise self._error(processes) from error
            yield batch
            waited_since = time.monotonic()

    def _hanging(self) -> LoaderError:
        read = [self._name(int(item)) for item in self.reading if item != NOTHING]
        return LoaderError(
            f"no batch came from the data in {self.timeout:g} seconds",
            where=f"reading {', '.join(read)}" if read else None,
            why="a disk, a network or a decoder does not answer",
            fix="look at this file; a longer train.loader_timeout; the same command goes on",
        )

    def _error(self, processes: list[BaseProcess]) -> LoaderError:
        codes = {place: process.exitcode for place, process in enumerate(processes)}
        dead = {place: code for place, code in codes.items() if code is not None}
        read = [self._name(int(self.reading[place])) for place in dead if self.reading[place] != NOTHING]
        code = next(iter(dead.values()))
        why = f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"
        what, fix = "a loader worker is gone", "smaller pictures, fewer num_workers, or more memory"
        reading = f"reading {', '.join(read)}" if read else None
        return LoaderError(what, where=reading, why=why, fix=f"{fix}; the same command goes on")

    def _name(self, index: int) -> str:
        known = able(self.dataset, KnowsPath)
        return f"item {index}" if known is None else str(known.path(index))


def _ended(processes: list[BaseProcess]) -> list[BaseProcess]:
    """Those that are gone, or are going: their exit codes are there afterwards."""
    sentinels = wait([process.sentinel for process in processes], PATIENCE)
    ended = [process for process in processes if process.sentinel in sentinels]
    for process in ended:
        process.join(PATIENCE)
    return ended


def one_pass(items: Any, num_workers: int, **options: Any) -> Iterator[Any]:
    """Every batch of `items` once; options are those of torch's loader. LoaderError: a worker was killed."""
    workers = Workers(items, num_workers)
    with workers.started(workers.loader(items, **options)) as batches:
        yield from batches


class _Flag:
    """An event without a lock: whoever is killed while he looks at it takes nothing along.

    torch asks the event of its workers whether they should end, after every batch; the lock in Python's own
    stays taken for ever when a worker is killed just then, and the next one to ask, this process, hangs.
    """

    def __init__(self) -> None:
        self._value = RawValue("b", 0)

    def set(self) -> None:
        self._value.value = 1

    def is_set(self) -> bool:
        return bool(self._value.value)


def _context() -> BaseContext:
    """How processes are begun here, with events that need no lock."""
    context = copy.copy(multiprocessing.get_context(multiprocessing.get_start_method()))
    vars(context)["Event"] = _Flag
    return context


@contextlib.contextmanager
def _no_handler_of_torch() -> Iterator[None]:
    """Another loader of this process may have left torch's handler behind, which would raise here as well."""
    child = signal.Signals.__members__.get("SIGCHLD")
    before = signal.getsignal(child) if child else None
    is_of_torch = isinstance(before, FunctionType) and before.__module__.startswith("torch.utils.data")
    with contextlib.suppress(ValueError):  # not in the main thread, where no handler runs
        if child and is_of_torch:
            signal.signal(child, signal.SIG_DFL)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            if child and is_of_torch:
                signal.signal(child, before)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Processes begun in the block never see the signals; this one sees them at its end.

    torch's own handler for the death of a worker is taken back: it raises in the middle of whatever is done,
    such as an update or a save. A worker's death is seen when the next batch is asked for.
    """
    child, hold = signal.Signals.__members__.get("SIGCHLD"), "pthread_sigmask" in vars(signal)
    before = signal.getsignal(child) if child else None
    held = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO) if hold else None
    try:
        yield
    finally:
        if held is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        with contextlib.suppress(ValueError):  # not in the main thread, where nobody set one
            if child and before is not None and signal.getsignal(child) is not before:
                signal.signal(child, before)
