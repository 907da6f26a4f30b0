"""Workers of a loader: one that is killed, or hangs, ends the stream with an error that names its file."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data._utils import signal_handling

from genzoo.data.digits import Digits
from genzoo.data.loader_workers import LoaderError
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
    steps = batches(stream, batch_size=4, per_device=4, num_workers=num_workers, loader_timeout=1.0)
    assert next(steps)[0]["index"].tolist() == [0, 1, 2, 3]
    with pytest.raises(
        LoaderError, match=r"(?s)no batch came from the data in 1 seconds.*reading digit7.png"
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
