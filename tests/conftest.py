"""One thread a test process: workers run side by side, and sums keep their order."""

import gc
import logging
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
gc.disable()  # while tests are collected


@pytest.fixture(autouse=True)
def _untouched_logging():
    """The command line sets up the package's logger; a test that calls it must not change the next one's."""
    logger = logging.getLogger("genzoo")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def pytest_collection_finish():
    """What was imported stays: looking through its half a million objects took a sixth of the time."""
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    gc.enable()
