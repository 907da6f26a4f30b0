"""What a call may change in the whole process, put back when it ends: a library is a guest."""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Iterator

import numpy as np
import torch

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def process_settings(device: torch.device | str = "cpu") -> Iterator[None]:
    """Within the block whatever belongs to the process may be set; afterwards it is as it was found.

    Put back: the global random generators of Python, numpy, torch's CPU and `device`, torch's switches for
    deterministic kernels and for TF32, and the filters of warnings. Float32 is float32 inside, until
    `allow_tf32`: torch itself rounds the factors of a GPU's convolutions to TF32.
    """
    with warnings.catch_warnings(), _generators(torch.device(device)), _switches():
        yield


def allow_tf32(device: torch.device | str) -> None:
    """Let float32 products of a GPU round their factors to TF32, until `process_settings` ends."""
    if torch.device(device).type != "cuda":
        logger.warning("allow_tf32 has no effect on %s: TF32 is of NVIDIA's GPUs", torch.device(device).type)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


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
def _switches() -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    kept = cudnn.benchmark, cudnn.deterministic
    tf32 = cudnn.allow_tf32, matmul.allow_tf32
    determinism = _determinism()
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = kept
        cudnn.allow_tf32, matmul.allow_tf32 = tf32
        if _determinism() != determinism:  # to set it, torch loads its compiler
            torch.use_deterministic_algorithms(determinism[0], warn_only=determinism[1])


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
