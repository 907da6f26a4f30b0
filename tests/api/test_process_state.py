"""A library call is a guest in the process: what belongs to all of it is found again as it was."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor.config  # its import sets a variable of the environment, by itself
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from recipe_cases import TINY

import genzoo
from genzoo.api.training.train import dry_run
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.training.hook import Hook, StepRecord, TrainingView


def state() -> dict[str, Any]:
    """What a caller may have set for the whole process."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warns": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "warnings": list(warnings.filters),
        "accelerate": [str(kept._shared_state) for kept in (PartialState, AcceleratorState, GradientState)],
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "logging": (logging.root.level, list(logging.root.handlers)),
    }


@pytest.fixture(autouse=True)
def _unusual(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """States that no library would leave behind by chance."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.manual_seed(11), np.random.seed(12), random.seed(13)  # noqa: NPY002
    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(mixed_precision="bf16", cpu=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="a filter of the caller's own")
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


def tiny() -> Recipe:
    return recipe_from(TINY).replaced({"train.steps": 2, "train.deterministic": True}, "here")


def differences(before: dict[str, Any]) -> list[str]:
    after = state()
    return [name for name in before if before[name] != after[name]]


def test_training_sampling_and_judging_leave_the_process_as_they_found_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    before = state()
    dry_run(tiny(), output=tmp_path / "dry")
    assert differences(before) == []
    run = genzoo.train(tiny(), output=tmp_path / "run")
    assert differences(before) == []
    run.sample(num=2, steps=2)
    run.sample_to(tmp_path / "samples", num=2, steps=2)
    assert differences(before) == []
    run.evaluate("quick-pixels", num=4, steps=2)
    assert differences(before) == []


def test_a_deterministic_run_is_so_while_it_goes_on(tmp_path: Path) -> None:
    class Ask(Hook):
        def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
            during.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

    during: list[tuple[bool, bool]] = []
    for wanted in (True, False):
        genzoo.train(
            tiny().replaced({"train.steps": 1, "train.deterministic": wanted, "report": []}, "here"),
            output=tmp_path / str(wanted),
            hooks=[Ask()],
        )
    assert during == [(True, False), (False, True)]


def test_float32_is_float32_while_a_run_goes_on_unless_it_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch rounds the factors of a GPU's convolutions to TF32 by itself."""

    class Ask(Hook):
        def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
            during.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))

    during: list[tuple[bool, bool]] = []
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for allowed in (False, True):
        genzoo.train(
            tiny().replaced({"train.steps": 1, "train.allow_tf32": allowed, "report": []}, "here"),
            output=tmp_path / str(allowed),
            hooks=[Ask()],
        )
    assert during == [(False, False), (True, True)]
    assert torch.backends.cudnn.allow_tf32
