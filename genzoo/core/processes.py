"""The processes that torchrun started, outside training: they share sampling and feature extraction."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, if it started any; they share sampling and extraction."""
    import torch.distributed as distributed

    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or distributed.is_initialized():
        yield
        return
    distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def wait_for_all() -> None:
    """Wait until every process has written its samples; nothing in a single one."""
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def is_first() -> bool:
    """Whether this process writes and prints."""
    return int(os.environ.get("RANK", 0)) == 0
