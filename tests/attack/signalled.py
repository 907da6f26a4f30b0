"""Training that sends itself, its whole group or one of its workers a signal in a state that is asked for."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import attack_cases

import genzoo.api.run as run_module
import genzoo.api.training.train as train_module
import genzoo.training.saving as saving_module
import genzoo.training.trainer as trainer_module
from genzoo.api.training.evaluation_hook import EvaluationHook
from genzoo.training.hooks import PreviewHook

STATES: dict[str, tuple[Any, str]] = {
    "start-up": (train_module, "build_dataset"),
    "step": (trainer_module, "micro_loss"),
    "save": (saving_module, "write_checkpoint"),
    "preview": (PreviewHook, "function"),
    "evaluation": (EvaluationHook, "_judge"),
    "report": (run_module, "run_report"),
}


def train(arguments: list[str], folder: str, *, state: str, signum: int, group: bool) -> None:
    """Run the command as the leader of a group of its own, and send one signal when it enters the state."""
    os.setpgid(0, 0)

    def send() -> None:
        (os.killpg if group else os.kill)(os.getpgid(0) if group else os.getpid(), signum)

    if state == "preview":
        _patch_previews(send)
    else:
        owner, name = STATES[state]
        setattr(owner, name, _once(getattr(owner, name), send))
    attack_cases.command(arguments, folder)


def lose_a_worker(arguments: list[str], folder: str) -> None:
    """Run the command, and kill one of its loader workers in the first step."""
    owner, name = STATES["step"]
    setattr(owner, name, _once(getattr(owner, name), lambda: multiprocessing.active_children()[0].kill()))
    attack_cases.command(arguments, folder)


def _once(function: Callable[..., Any], send: Callable[[], None]) -> Callable[..., Any]:
    sent: list[bool] = []

    def disturbed(*args: Any, **kwargs: Any) -> Any:
        if not sent:
            sent.append(True)
            send()
        return function(*args, **kwargs)

    return disturbed


def _patch_previews(send: Callable[[], None]) -> None:
    make = train_module.preview_function
    train_module.preview_function = lambda *args, **kwargs: _once(make(*args, **kwargs), send)
