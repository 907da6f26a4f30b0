"""A run folder that is removed, renamed or replaced under a living process gets nothing more written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toys import toy_trainer

from genzoo.core.checkpoint import checkpoint_steps
from genzoo.core.errors import RunLockedError, RunLostError
from genzoo.core.run_folder import RunFolder
from genzoo.training.hook import Hook, StepRecord, TrainingView


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the lock's own."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class At(Hook):
    """Does something after a step, as another process might."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action = step, action

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        if record.step == self.step:
            trainer.wait_for_save()  # or the removal below would race with its thread
            self.action()


def test_a_folder_that_another_run_took_is_left_to_it(tmp_path: Path, saving: dict[str, Any]) -> None:
    run, found = tmp_path / "run", {}

    def replace() -> None:
        shutil.rmtree(run)
        toy_trainer(run, steps=2).fit()
        found.update(content(run))

    with pytest.raises(RunLostError, match="removed or replaced") as caught:
        toy_trainer(run, hooks=(At(5, replace),), **saving).fit()
    assert caught.value.exit_code == 4
    assert str(run) in str(caught.value)
    assert list(checkpoint_steps(run / "checkpoints")) == [2]
    assert content(run) == found
    with RunFolder(run).lock():  # its own lock is as good as before
        pass


def test_a_second_run_holds_its_lock_when_the_first_one_gives_up(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first, second = RunFolder(run), RunFolder(run)
    with first.lock():
        shutil.rmtree(run)
        with second.lock():
            with pytest.raises(RunLostError):
                first.set_status("running", step=1, steps=2)
            second.set_status("running", step=1, steps=2)
            assert second.status()["step"] == 1
    with second.lock():
        pass


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_folder_that_is_gone_does_not_come_back(tmp_path: Path, how: str, saving: dict[str, Any]) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    action = (lambda: shutil.rmtree(run)) if how == "removed" else (lambda: run.rename(elsewhere))
    with pytest.raises(RunLostError):
        toy_trainer(run, hooks=(At(6, action),), **saving).fit()
    assert not run.exists()
    if how == "renamed":
        assert list(checkpoint_steps(elsewhere / "checkpoints")) == [4]
        assert toy_trainer(elsewhere).fit().resumed_from == 4


def test_whoever_holds_the_folder_may_write_and_nobody_else_gets_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.require_held()  # not locked: nothing to compare with
    with folder.lock():
        folder.require_held()
        with pytest.raises(RunLockedError), RunFolder(tmp_path / "run").lock():
            pass
        folder.require_held()
