"""Workers of a loader: one that is killed, or hangs, ends the stream with an error that names its file."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data._utils import signal_handling

import genzoo
from genzoo.data.digits import Digits
from genzoo.data.loader_workers import LoaderError, Workers, one_pass
from genzoo.data.sample_stream import SampleStream, batches


class SlowDigits(Digits):
    """So slow that workers are at work when one of them is killed."""

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        time.sleep(0.1)
        return super().fetch(index, generator)


@pytest.mark.timeout(120)
def test_a_killed_worker_ends_the_stream_with_its_signal() -> None:
    before = set(multiprocessing.active_children())
    steps = batches(SampleStream(SlowDigits(), seed=0), batch_size=4, per_device=4, num_workers=2)
    next(steps)
    worker = next(child for child in multiprocessing.active_children() if child not in before)
    os.kill(worker.pid or 0, signal.SIGKILL)
    with pytest.raises(LoaderError, match=r"(?s)a loader worker is gone.*killed by signal 9"):
        list(itertools.islice(steps, 200))


class Suicidal(Digits):
    """Item 7 kills its worker while that holds the lock of the loader's event, if there is one."""

    fetch_many = None  # one by one

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        if index == 7:
            event = next(
                outer.frame.f_locals["done_event"]
                for outer in inspect.stack(0)
                if "done_event" in outer.frame.f_locals
            )
            with getattr(event, "_cond", contextlib.nullcontext()):
                os.kill(os.getpid(), signal.SIGKILL)
        return super().fetch(index, generator)


@pytest.mark.timeout(120)
def test_a_worker_that_is_killed_while_it_looks_at_a_flag_holds_nobody_up() -> None:
    stream = SampleStream(Suicidal(), seed=0, shuffle=False)
    steps = batches(stream, batch_size=4, per_device=4, num_workers=2)
    with pytest.raises(LoaderError, match="killed by signal 9"):
        list(itertools.islice(steps, 5))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "x")])
def test_a_batch_that_went_with_its_worker_is_the_workers_end(error: Exception) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_killed)
    worker.start()

    def batches() -> Iterator[Any]:
        raise error
        yield

    with pytest.raises(LoaderError, match="killed by signal 9"):
        next(Workers(Digits(), 1)._watched(batches(), [worker]))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_a_disk_stays_one(num_workers: int) -> None:
    with pytest.raises(OSError, match="the disk says no"):
        list(one_pass(_Items(_disk), num_workers=num_workers, batch_size=None))


@pytest.mark.timeout(120)
def test_a_worker_that_is_killed_in_one_pass_is_told() -> None:
    with pytest.raises(LoaderError, match="killed by signal 9"):
        list(one_pass(_Items(_killed), num_workers=2, batch_size=None))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_the_data_is_never_taken_for_one_of_the_loader(num_workers: int) -> None:
    with pytest.raises(RuntimeError, match="a decoder says no"):
        list(one_pass(_Items(_refused), num_workers=num_workers, batch_size=None))


class _Items(torch.utils.data.Dataset):
    """Ten numbers, of which the fourth meets an accident."""

    def __init__(self, accident: Callable[[], None]) -> None:
        self.accident = accident

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        if index == 3:
            self.accident()
        return index


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _disk() -> None:
    raise OSError(5, "the disk says no")


def _refused() -> None:
    raise RuntimeError("a decoder says no")


@pytest.mark.timeout(120)
def test_a_handler_that_another_loader_left_changes_nothing_and_stays() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        signal_handling._SIGCHLD_handler_set = False
        signal_handling._set_SIGCHLD_handler()
        left = signal.getsignal(signal.SIGCHLD)
        assert callable(left)
        test_a_killed_worker_ends_the_stream_with_its_signal()
        assert signal.getsignal(signal.SIGCHLD) is left
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_every_loader_is_made_in_one_place() -> None:
    package = Path(genzoo.__file__).parent
    makers = [
        str(file.relative_to(package)) for file in package.rglob("*.py") if "DataLoader(" in file.read_text()
    ]
    assert makers == ["data/loader_workers.py"]


class HangingDigits(Digits):
    """The item `at` never comes; all have the name of a file."""

    at = 7
    fetch_many = None  # one by one

    def path(self, index: int) -> Path:
        return Path(f"digit{index}.png")

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        if index == self.at:
            threading.Event().wait()
        return super().fetch(index, generator)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_item_that_never_comes_is_named_when_time_is_up(num_workers: int) -> None:
    stream = SampleStream(HangingDigits(), seed=0, shuffle=False)
    steps = batches(stream, batch_size=4, per_device=4, num_workers=num_workers, loader_timeout=5.0)
    assert next(steps)[0]["index"].tolist() == [0, 1, 2, 3]
    with pytest.raises(
        LoaderError, match=r"(?s)no batch came from the data in 5 seconds.*reading digit7.png"
    ):
        next(steps)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_timeout_changes_no_batch(num_workers: int) -> None:
    options = {"batch_size": 5, "per_device": 5, "num_workers": num_workers}
    with_one, without = (
        list(itertools.islice(batches(SampleStream(Digits(), seed=3), loader_timeout=seconds, **options), 3))
        for seconds in (60.0, None)
    )
    for (one,), (other,) in zip(with_one, without, strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
        assert torch.equal(one["index"], other["index"])
