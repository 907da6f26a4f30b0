"""Workers of a loader: one that is killed ends the stream with an error that says so."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from typing import Any

import pytest
import torch

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
