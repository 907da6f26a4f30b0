"""A signal finishes the step, commits a checkpoint, and ends with the documented code."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from compare import final, fingerprint
from fork_server import ForkServer
from toys import toy_trainer

from genzoo.core.checkpoint import checkpoint_steps
from genzoo.core.errors import Interrupted
from genzoo.core.run_folder import RunFolder
from genzoo.training.signals import StopSignals

pytestmark = pytest.mark.distributed
CONFIG = {"steps": 9, "checkpoint_every": 100}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_saves_and_ends_with_its_code(
    tmp_path: Path, fork_server: ForkServer, signum: int, saving: dict[str, str]
) -> None:
    output = str(tmp_path / "run")
    child = fork_server.start(
        "cases:train_and_signal", output=output, at=4, signals=[signum], **CONFIG, **saving
    )
    assert child.wait() == 128 + signum
    # the signal arrives while a hook looks at step 4
    assert final(tmp_path / "run").step == 4
    status = RunFolder(output).status()
    assert (status["state"], status["step"]) == ("interrupted", 4)
    assert signal.Signals(signum).name in status["reason"]


def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, str]
) -> None:
    fork_server.start("cases:train", output=str(tmp_path / "whole"), **CONFIG, **saving).wait()
    cut = str(tmp_path / "cut")
    for at in (2, 6):
        child = fork_server.start(
            "cases:train_and_signal", output=cut, at=at, signals=[15], **CONFIG, **saving
        )
        assert child.wait() == 143
    assert fork_server.start("cases:train", output=cut, **CONFIG, **saving).wait() == 0
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_a_signal_inside_a_save_lets_it_finish(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, str]
) -> None:
    config = {"steps": 9, "checkpoint_every": 3}
    child = fork_server.start(
        "cases:train_and_signal_in_save", output=str(tmp_path), signum=signal.SIGTERM, **config, **saving
    )
    assert child.wait() == 143
    steps = list(checkpoint_steps(tmp_path / "checkpoints"))
    # beside a save steps go on: the one that the signal met is saved too, the next save at the latest
    assert (steps[-1], steps[0] <= {"foreground": 3, "background": 7}[saving["save"]]) == (3, True)
    assert final(tmp_path).step == steps[0]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_second_signal_does_not_lose_the_checkpoint_and_both_are_answered(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    child = fork_server.start("cases:train_and_signal", output=str(tmp_path), at=4, signals=[15, 2], **CONFIG)
    assert child.wait() == 128 + signal.SIGTERM
    assert final(tmp_path).step == 4
    assert "SIGTERM: the run stops after this step, and a checkpoint is saved" in child.output()
    assert "SIGINT: still finishing the step; a third Ctrl-C ends at once" in child.output()


def test_the_third_ctrl_c_ends_at_once(tmp_path: Path, fork_server: ForkServer) -> None:
    child = fork_server.start("cases:train_and_signal", output=str(tmp_path), at=4, signals=[2] * 3, **CONFIG)
    assert child.wait() == 130
    assert not (tmp_path / "checkpoints").exists()


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_while_hooks_look_at_the_last_step_is_not_swallowed(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, str]
) -> None:
    child = fork_server.start(
        "cases:train_and_signal", output=str(tmp_path), at=9, signals=[15], **CONFIG, **saving
    )
    assert child.wait() == 143
    assert final(tmp_path).step == 9


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_workers_too_saves(tmp_path: Path, fork_server: ForkServer, signum: int) -> None:
    child = fork_server.start(
        "cases:train_and_signal_family", output=str(tmp_path), signum=signum, num_workers=2, **CONFIG
    )
    assert child.wait() == 128 + signum, child.output()
    assert final(tmp_path).step == 4


def test_within_the_grace_a_repeated_signal_is_the_same_request() -> None:
    with StopSignals(grace=1e9) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGINT


def test_handlers_are_restored_after_training(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    toy_trainer(tmp_path, steps=2).fit()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_ctrl_c_in_a_notebook_raises_interrupted(tmp_path: Path) -> None:
    class PressCtrlC:
        def on_start(self, trainer: object) -> None: ...
        def on_checkpoint(self, trainer: object, path: Path) -> None: ...
        def on_end(self, trainer: object) -> None: ...

        def on_step(self, trainer: object, record: object) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"SIGINT after step 1; a checkpoint was saved") as caught:
        toy_trainer(tmp_path, hooks=(PressCtrlC(),)).fit()
    assert caught.value.exit_code == 130


def test_with_two_processes_a_signal_to_one_stops_both_after_the_same_step(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, str]
) -> None:
    options = {"output": str(tmp_path), "at": 4, "signals": [15], "rank": 1, **CONFIG, **saving}
    ranks = fork_server.start_ranks("cases:train_and_signal", world=2, **options)
    assert [rank.wait() for rank in ranks] == [143, 143]
    assert final(tmp_path).step == 5
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"
