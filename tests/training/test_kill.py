"""kill -9 at a hundred random moments: no invalid checkpoint, little is lost, the result is the same."""

from __future__ import annotations

import logging
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from compare import fingerprint
from fork_server import Child, ForkServer

from genzoo.core.checkpoint import checkpoint_steps, verify_checkpoint
from genzoo.core.run_folder import read_metrics

logger = logging.getLogger(__name__)
KILLS = 100
EVERY = 3
CONFIG: dict[str, Any] = {"steps": 60, "checkpoint_every": EVERY, "keep_last": 2, "model": {"hidden": 200}}


class Trial:
    """One child that trains until it is killed, and the events it reported."""

    def __init__(self, server: ForkServer, output: Path, pipe: Path, config: dict[str, Any]) -> None:
        self.child: Child = server.start(
            "cases:train_with_events", output=str(output), events=str(pipe), **config
        )
        self.events = os.open(pipe, os.O_RDONLY)

    def wait_for(self, event: bytes) -> bool:
        """Read events up to this one; False when the child ended before."""
        while seen := os.read(self.events, 1):
            if seen == event:
                return True
        return False

    def end(self, *, killed: bool) -> bool:
        """Kill the child, or let it finish; whether it finished by itself."""
        if killed:
            self.child.kill()
        while os.read(self.events, 4096):
            pass
        os.close(self.events)
        code = self.child.wait()
        assert code in (0, -9), self.child.output()
        return code == 0


def save_duration(server: ForkServer, output: Path, pipe: Path, config: dict[str, Any]) -> float:
    """Typical seconds of one save, to aim with; nothing is asserted about it."""
    trial, durations = Trial(server, output, pipe, config), []
    while trial.wait_for(b"s"):
        started = time.monotonic()
        trial.wait_for(b"e")
        durations.append(time.monotonic() - started)
    assert trial.end(killed=False)
    return statistics.median(durations)


def check(output: Path, most: int) -> int:
    """Every committed step is valid and at most so many are lost; returns 1 when a save was cut short."""
    committed = checkpoint_steps(output / "checkpoints")
    for path in committed.values():
        verify_checkpoint(path)
    log = output / "metrics.jsonl"
    steps_done = max((line["step"] for line in read_metrics(log)), default=0) if log.exists() else 0
    assert steps_done - max(committed, default=0) <= most
    return int(any((output / "checkpoints").glob(".tmp-*")))


@pytest.mark.slow
@pytest.mark.distributed
def test_a_hundred_kills_leave_valid_checkpoints_and_the_same_result(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, str]
) -> None:
    # beside the steps, the one in flight is waited for when the next one is due
    config, most = CONFIG | saving, EVERY * (2 if saving["save"] == "background" else 1)
    seed = random.SystemRandom().randrange(2**32)
    logger.info("random seed %d", seed)
    chance = random.Random(seed)
    pipe = tmp_path / "events"
    os.mkfifo(pipe)
    typical = save_duration(fork_server, tmp_path / "whole", pipe, config)
    kills = in_save = runs = 0
    while kills < KILLS or 3 * in_save < kills:
        assert kills < 4 * KILLS, f"only {in_save} of {kills} kills hit a save"
        output = tmp_path / f"run{runs}"
        trial = Trial(fork_server, output, pipe, config)
        aim_at_save = 5 * in_save < 2 * kills or chance.random() < 0.4
        reached = all(trial.wait_for(b"s" if aim_at_save else b"t") for _ in range(chance.randint(1, 3)))
        if reached:
            time.sleep(chance.uniform(0, typical if aim_at_save else 2 * typical))
        if trial.end(killed=reached):
            assert fingerprint(output) == fingerprint(tmp_path / "whole")
            runs += 1
        else:
            kills += 1
            in_save += check(output, most)
    fork_server.start("cases:train", output=str(output), **config).wait()
    assert fingerprint(output) == fingerprint(tmp_path / "whole")
    logger.info("%d kills, %d inside a save, %d runs finished in between", kills, in_save, runs)
