"""The power fails at every file operation of five saves: no committed checkpoint is lost."""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from extent import WHOLE
from fork_server import ForkServer
from power_loss import Keep, Step, any_part, names_without_data, only_synced, play, read_trace, write_state

from genzoo.core.checkpoint import checkpoint_steps, verify_checkpoint
from genzoo.core.errors import CheckpointError

logger = logging.getLogger(__name__)
SAVES = 5


@pytest.fixture(scope="module")
def trace(attacked: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    folder = tmp_path_factory.mktemp("saves")
    (folder / "checkpoints").mkdir()
    root, record = folder / "checkpoints", folder / "record"
    fault = {"folder": str(root), "action": 0, "number": 0, "code": 0, "record": str(record)}
    fault |= {"data": True, "reads": False}
    child = attacked.start("attack_cases:save_five_times", folder=str(folder), fault=fault)
    assert child.wait() == 0, child.output()
    return read_trace(record, root)


def committed(steps: list[Step]) -> Iterator[int]:
    """The newest step whose save had returned after 0, 1, 2, ... operations."""
    newest, named = 0, 0
    yield newest
    for step in steps:
        if step.kind == "rename" and step.second.startswith("step_"):
            named = int(step.second.removeprefix("step_"))
        elif step.kind == "sync" and step.path == ".":
            newest = named
        yield newest


def loses(state: Path, wanted: int) -> bool:
    """Whether the newest committed step, or a newer one, is not what a start would find."""
    for step, path in checkpoint_steps(state).items():
        with contextlib.suppress(CheckpointError):
            verify_checkpoint(path)
            return step < wanted
    return wanted > 0


def losses(steps: list[Step], commits: list[int], keep: Keep, folder: Path) -> int:
    found = 0
    for root, wanted in zip(play(steps), commits, strict=True):
        write_state(root, folder, keep)
        found += loses(folder, wanted)
        shutil.rmtree(folder)
    return found


def test_the_trace_is_that_of_five_saves(trace: list[Step], tmp_path: Path) -> None:
    *_, root = play(trace)
    write_state(root, tmp_path / "state", lambda one: one.names if hasattr(one, "names") else one.data)
    assert list(checkpoint_steps(tmp_path / "state")) == [SAVES, SAVES - 1]
    assert not loses(tmp_path / "state", SAVES)
    assert list(committed(trace))[-1] == SAVES


def test_no_committed_checkpoint_is_lost(trace: list[Step], tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    logger.info("random seed %d", seed)
    commits, chance = list(committed(trace)), random.Random(seed)
    models = [only_synced, names_without_data, *[any_part(chance)] * (20 if WHOLE else 1)]
    counts = [losses(trace, commits, model, tmp_path / "state") for model in models]
    logger.info(
        "power loss: %d operations, %d states, %d losses", len(trace), len(models) * len(commits), sum(counts)
    )
    assert counts == [0] * len(models)


@pytest.mark.parametrize("model", [only_synced, names_without_data])
def test_without_syncs_checkpoints_are_lost(trace: list[Step], tmp_path: Path, model: Keep) -> None:
    unsynced = [step for step in trace if step.kind != "sync"]
    synced = iter(committed(trace))
    commits = [next(synced)]
    commits += [newest for step, newest in zip(trace, synced, strict=True) if step.kind != "sync"]
    lost = losses(unsynced, commits, model, tmp_path / "state")
    logger.info("power loss without syncs: %d of %d states lose a checkpoint", lost, len(commits))
    assert lost > len(commits) // 2
