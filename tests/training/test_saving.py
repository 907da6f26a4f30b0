"""Checkpoints that are written beside the steps are those that are written between them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compare import final, fingerprint
from fork_server import ForkServer
from toys import toy_task, toy_trainer

import genzoo.training.saving as saving_module
from genzoo.core import host_copies
from genzoo.core.checkpoint import checkpoint_steps, latest_valid
from genzoo.core.errors import CheckpointError, RecipeError, UsageError
from genzoo.core.host_copies import HostCopies
from genzoo.core.run_folder import RunFolder
from genzoo.training.config import TrainConfig
from genzoo.training.hook import Hook, StepRecord, TrainingView

BESIDE = {"save": "background"}
PATIENCE = 60.0  # seconds


def files(run: Path) -> dict[str, bytes]:
    """Every byte of every checkpoint, by path."""
    found = sorted((run / "checkpoints").rglob("*"))
    return {str(path.relative_to(run)): path.read_bytes() for path in found if path.is_file()}


class Gate:
    """Writers of checkpoints wait here, and are counted; `open` lets them through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.inside, self.most, self.began = 0, 0, []
        self.write = saving_module.write_checkpoint
        monkeypatch.setattr(saving_module, "write_checkpoint", self)

    def __call__(self, root: Path, step: int, *args: Any, **kwargs: Any) -> Path:
        self.inside += 1
        self.began.append(step)
        self.entered.set()
        self.most = max(self.most, self.inside)
        assert self.open.wait(PATIENCE)
        try:
            return self.write(root, step, *args, **kwargs)
        finally:
            self.inside -= 1


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


class OnStep(Hook):
    """Calls a function after each step, and notes which checkpoints were told of at which step."""

    def __init__(self, function: Any = lambda trainer, step: None) -> None:
        self.function = function
        self.told: list[tuple[int, str]] = []

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        self.function(trainer, record.step)

    def on_checkpoint(self, trainer: TrainingView, path: Path) -> None:
        self.told.append((trainer.step, path.name))


@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16"])
def test_every_byte_of_every_checkpoint_is_that_of_the_foreground(tmp_path: Path, precision: str) -> None:
    config = {"checkpoint_every": 2, "keep_last": 9, "precision": precision, "ema_profiles": [0.1, 0.2]}
    for save in ("foreground", "background"):
        toy_trainer(tmp_path / save, save=save, **config).fit()
    assert len(checkpoint_steps(tmp_path / "foreground" / "checkpoints")) == 6
    assert files(tmp_path / "background") == files(tmp_path / "foreground")
    assert fingerprint(tmp_path / "background") == fingerprint(tmp_path / "foreground")


def test_steps_go_on_beside_a_save_and_the_next_one_waits_for_it(tmp_path: Path, gate: Gate) -> None:
    began = {}

    def look(trainer: TrainingView, step: int) -> None:
        if step == 7:  # the thread of the first save may be slow to start
            assert gate.entered.wait(PATIENCE)
        began[step] = list(gate.began)
        if step == 7:
            gate.open.set()

    hook = OnStep(look)
    toy_trainer(tmp_path, hooks=(hook,), **BESIDE).fit()
    assert began[7] == [4]
    assert gate.began == [4, 8, 12]
    assert gate.most == 1
    assert [name for _, name in hook.told] == ["step_00000004", "step_00000008", "step_00000012"]
    assert hook.told[0][0] > 7
    assert final(tmp_path).step == 12


def test_an_error_beside_the_steps_ends_the_run_at_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = {}
    for save in ("foreground", "background"):
        failed = threading.Event()

        def refuse(
            root: Path, step: int, *args: Any, failed: threading.Event = failed, **kwargs: Any
        ) -> Path:
            failed.set()
            raise CheckpointError("cannot write the checkpoint", where=f"step {step}", why="no space")

        def wait(trainer: TrainingView, step: int, failed: threading.Event = failed) -> None:
            if step == 4:
                assert failed.wait(PATIENCE)

        monkeypatch.setattr(saving_module, "write_checkpoint", refuse)
        trainer = toy_trainer(tmp_path / save, hooks=(OnStep(wait),), save=save, checkpoint_every=4)
        with pytest.raises(CheckpointError) as caught:
            trainer.fit()
        messages[save] = str(caught.value)
        assert trainer.step <= {"foreground": 4, "background": 8}[save]
        status = RunFolder(tmp_path / save).status()
        assert (status["state"], status["exit_code"]) == ("failed", 4)
    assert messages["background"] == messages["foreground"]


def test_a_save_in_flight_is_finished_when_another_error_ends_the_run(tmp_path: Path, gate: Gate) -> None:
    def fail(trainer: TrainingView, step: int) -> None:
        if step == 5:
            threading.Timer(0.2, gate.open.set).start()
            raise RuntimeError("of its own")

    trainer = toy_trainer(tmp_path, hooks=(OnStep(fail),), **BESIDE)
    with pytest.raises(RuntimeError, match="of its own"):
        trainer.fit()
    assert latest_valid(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step_00000004"
    trainer.wait_for_save()  # there is none any more
    toy_trainer(tmp_path, **BESIDE).fit()
    toy_trainer(tmp_path / "whole").fit()
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "whole")


def test_whoever_needs_the_checkpoint_can_wait_for_it(tmp_path: Path, gate: Gate) -> None:
    found = []

    def need(trainer: TrainingView, step: int) -> None:
        if step == 4:
            threading.Timer(0.2, gate.open.set).start()
            assert trainer.saved is None
            trainer.wait_for_save()
            found.append(trainer.saved)

    toy_trainer(tmp_path, hooks=(OnStep(need),), **BESIDE).fit()
    assert found == [tmp_path / "checkpoints" / "step_00000004"]


def test_memory_that_is_too_small_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_copies, "free_host_memory", lambda: 1000)
    trainer = toy_trainer(tmp_path, **BESIDE)
    with pytest.raises(UsageError, match="1,000 are free") as caught:
        trainer.fit()
    assert "train.save: foreground" in str(caught.value)
    assert trainer.step == 0
    assert toy_trainer(tmp_path / "other", steps=1).fit().step == 1


def test_a_copy_is_made_in_the_same_place_each_time() -> None:
    weights = dict(toy_task().model.state_dict())
    copies, places = HostCopies(), []
    for factor in (1, 2):
        for tensor in weights.values():
            tensor.mul_(factor)
        copies.make_room({"model": weights})
        copies.fill({"model": weights})
        found = copies.copied()["model"]
        assert all(found[name].equal(tensor) for name, tensor in weights.items())
        places.append({name: tensor.data_ptr() for name, tensor in found.items()})
    assert places[0] == places[1]
    assert set(places[0].values()).isdisjoint(tensor.data_ptr() for tensor in weights.values())


def test_another_word_for_when_to_save_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"train\.save: 'later' is not one of foreground, background"):
        TrainConfig(steps=1, batch_size=1, save="later")  # type: ignore[arg-type]


@pytest.mark.distributed
def test_two_processes_save_beside_their_steps_and_tell_the_same_error(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    options = {"model": {"hidden": 500}, "optim": {"name": "adamw"}, "limit": 20_000, **BESIDE}
    ranks = fork_server.start_ranks("cases:train_with_file_limit", world=2, output=str(tmp_path), **options)
    assert [rank.wait(PATIENCE) for rank in ranks] == [4, 4]
    assert all("cannot write the checkpoint of" in rank.output() for rank in ranks)
    assert all("step_00000004" in rank.output() for rank in ranks)
    assert not list(tmp_path.rglob(".tmp-*"))
