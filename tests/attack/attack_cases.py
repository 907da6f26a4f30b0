"""What forked processes run under attack: genzoo's command line, with the preloaded library armed or not."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from command_inputs import build_inputs
from scenarios import READING, SCENARIOS, copy_inputs

from genzoo.cli import main


def arm(fault: dict[str, Any]) -> None:
    """Arm the preloaded library in this process."""
    library = ctypes.CDLL(None)
    text, number = ctypes.c_char_p, ctypes.c_int
    library.faults_arm.argtypes = [text, number, ctypes.c_long, number, text, number, number]
    keys = ("folder", "action", "number", "code", "record", "data", "reads")
    values = [fault[key] for key in keys]
    library.faults_arm(*[os.fsencode(value) if isinstance(value, str) else int(value) for value in values])


def command(arguments: list[str], folder: str, *, fault: dict[str, Any] | None = None) -> None:
    """Run a command in a folder; ends the process with its exit code."""
    os.chdir(folder)
    sys.argv = ["genzoo", *arguments]
    if fault is not None:
        arm(fault)
    code = 0
    try:
        main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def warm_up(inputs: str) -> None:
    """Run every command once in this process, so that its children need not import anything."""
    before = Path.cwd()
    with open(os.devnull, "w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        build_inputs(inputs)
        for scenario in dict.fromkeys([*SCENARIOS, *READING]):
            with tempfile.TemporaryDirectory() as work, contextlib.suppress(SystemExit):
                copy_inputs(Path(inputs), Path(work), scenario)
                os.chdir(work)
                main(list(scenario.arguments))
    os.chdir(before)


def save_five_times(folder: str, *, fault: dict[str, Any]) -> None:
    """Five checkpoints, of which the last two stay."""
    from genzoo.core.checkpoint_saving import save_checkpoint

    arm(fault)
    for step in range(1, 6):
        weights = {"w": torch.full((7,), float(step))}
        save_checkpoint(Path(folder, "checkpoints"), step, weights=weights, state={}, keep_last=2)


warm_up(os.environ["ATTACK_INPUTS"])
