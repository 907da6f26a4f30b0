"""A signal in any state of training: a checkpoint, the documented code, no orphan, the same result."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from extent import tried
from fork_server import ForkServer
from scenarios import SCENARIOS, copy_inputs
from trees import content

from genzoo.core.checkpoint import latest_valid
from genzoo.core.run_folder import RunFolder
from genzoo.training.config import SAVINGS

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
ROOT = Path(__file__).resolve().parents[2]


class Case(NamedTuple):
    """workers: of the loader.   group: whether they get the signal, too.   save: train.save."""

    state: str
    signal: str
    group: bool
    workers: int
    save: str = "foreground"

    def __str__(self) -> str:
        to = "group" if self.group else "process"
        return f"{self.state}-{self.signal}-{to}-{self.workers}-{self.save}"


POLITE = ("step", "save", "preview", "evaluation")
REDUCED = [
    *[Case(state, "SIGTERM", True, 2) for state in POLITE],
    *[Case(state, "SIGINT", False, 0) for state in POLITE],
    Case("step", "SIGHUP", True, 0),
    Case("step", "SIGUSR1", False, 2),
    Case("step", "SIGTERM", True, 2, "background"),
    Case("save", "SIGINT", False, 0, "background"),
]
EVERY = [Case(*one) for one in itertools.product(POLITE, SIGNALS, (False, True), (0, 2), SAVINGS)]
OUTSIDE = list(itertools.product(["start-up", "report"], SIGNALS))
LAUNCHED = [(name, group) for name in SIGNALS[:3] for group in (False, True)]


def arguments(workers: int, *more: str) -> list[str]:
    return ["train", "recipe.yaml", f"train.num_workers={workers}", "--output", "out", *more]


@pytest.fixture
def work(inputs: Path, attacked: ForkServer, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    copy_inputs(inputs, folder, SCENARIOS[0])
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, attacked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    copy_inputs(inputs, folder, SCENARIOS[0])
    child = attacked.start(
        "attack_cases:command", env=cache(folder), arguments=arguments(0), folder=str(folder)
    )
    assert child.wait() == 0, child.output()
    return folder / "out"


def cache(folder: Path) -> dict[str, str]:
    return {"GENZOO_CACHE": str(folder / "cache")}


def weights(run: Path) -> list[object]:
    newest = latest_valid(run / "checkpoints")
    assert newest is not None
    return [newest.name, *(content(newest / f"{part}.safetensors") for part in ("model", "ema", "optimizer"))]


def gone(group: int) -> bool:
    """Whether no process of the group is left, within a few seconds."""
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def train_again(attacked: ForkServer, work: Path, told: list[str]) -> None:
    child = attacked.start("attack_cases:command", env=cache(work), arguments=told, folder=str(work))
    assert child.wait(120) == 0, child.output()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", tried(EVERY, REDUCED), ids=str)
def test_a_signal_saves_in_every_state(
    attacked: ForkServer, work: Path, undisturbed: Path, case: Case
) -> None:
    signum = signal.Signals[case.signal]
    told = arguments(case.workers, f"train.save={case.save}")
    child = attacked.start(
        "signalled:train", env=cache(work), arguments=told, folder=str(work),
        state=case.state, signum=int(signum), group=case.group,
    )  # fmt: skip
    assert child.wait(120) == 128 + signum, child.output()
    assert gone(child.pid)
    assert latest_valid(work / "out" / "checkpoints") is not None
    status = RunFolder(work / "out").status()
    assert (status["state"], signum.name in status["reason"]) == ("interrupted", True)
    assert "this is a bug" not in child.output()
    assert "Traceback" not in child.output()
    train_again(attacked, work, told)
    assert weights(work / "out") == weights(undisturbed)


@pytest.mark.parametrize(("state", "name"), tried(OUTSIDE, [one for one in OUTSIDE if one[1] in SIGNALS[:2]]))
def test_outside_the_steps_a_signal_ends_at_once_and_nothing_is_lost(
    attacked: ForkServer, work: Path, undisturbed: Path, state: str, name: str
) -> None:
    signum = signal.Signals[name]
    child = attacked.start(
        "signalled:train", env=cache(work), arguments=arguments(0), folder=str(work),
        state=state, signum=int(signum), group=True,
    )  # fmt: skip
    assert child.wait(120) == (130 if name == "SIGINT" else -signum), child.output()
    assert gone(child.pid)
    assert RunFolder(work / "out").status().get("state") == {"start-up": None, "report": "finished"}[state]
    train_again(attacked, work, arguments(0))
    assert weights(work / "out") == weights(undisturbed)
    assert (work / "out" / "report.json").is_file()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("save", SAVINGS)
def test_a_worker_that_is_killed_costs_no_step(
    attacked: ForkServer, work: Path, tmp_path: Path, save: str
) -> None:
    bare = ("preview=null", "evaluation=null", "report=null", "train.checkpoint_every=100", "train.steps=24")
    told = arguments(2, f"train.save={save}", *bare)
    child = attacked.start("signalled:lose_a_worker", env=cache(work), arguments=told, folder=str(work))
    assert child.wait(120) == 4, child.output()
    assert "a loader worker is gone" in child.output()
    assert "this is a bug" not in child.output()
    newest = latest_valid(work / "out" / "checkpoints")
    assert newest is not None
    assert 1 <= int(newest.name.removeprefix("step_")) < 24
    train_again(attacked, work, told)
    other = tmp_path / "undisturbed"
    other.mkdir()
    copy_inputs(work, other, SCENARIOS[0])
    train_again(attacked, other, arguments(0, *bare))
    assert weights(work / "out") == weights(other / "out")


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("name", "group"), tried(LAUNCHED, LAUNCHED[:1]))
def test_torchrun_passes_a_signal_on_and_both_ranks_save(work: Path, name: str, group: bool) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "genzoo")
    more = (
        "train.steps=100000",
        "preview=null",
        "evaluation=null",
        "report=null",
        "train.checkpoint_every=50",
    )
    environment = os.environ | cache(work) | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    environment |= {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *launcher, *arguments(2, *more)], cwd=work, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    first = work / "out" / "checkpoints" / "step_00000050"
    while not first.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    (os.killpg if group else os.kill)(process.pid, signal.Signals[name])
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert "a checkpoint was saved" in output, output
    status = RunFolder(work / "out").status()
    assert status["state"] == "interrupted", output
    newest = latest_valid(work / "out" / "checkpoints")
    assert newest is not None
    assert newest.name == f"step_{status['step']:08d}"
    assert gone(process.pid)
