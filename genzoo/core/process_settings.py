"""What a call may change in the whole process, put back when it ends: a library is a guest."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def process_settings(device: torch.device | str = "cpu") -> Iterator[None]:
    """Within the block whatever belongs to the process may be set; afterwards it is as it was found.

    Put back: the global random generators of Python, numpy, torch's CPU and `device`, torch's deterministic
    switches, and the filters of warnings.
    """
    with warnings.catch_warnings(), _generators(torch.device(device)), _deterministic_switches():
        yield


@contextlib.contextmanager
def _generators(device: torch.device) -> Iterator[None]:
    module = torch.get_device_module(device) if device.type != "cpu" else None
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_device = module.get_rng_state() if module else None
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])
        if module:
            module.set_rng_state(on_device)


@contextlib.contextmanager
def _deterministic_switches() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    kept = cudnn.benchmark, cudnn.deterministic
    wanted = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = kept
        torch.use_deterministic_algorithms(wanted, warn_only=only_warn)
