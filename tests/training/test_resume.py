"""A resumed run is the uninterrupted run, bit for bit: weights, averages, optimizer, data order, losses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from compare import final, fingerprint
from toys import ToyDataset, toy_task, toy_trainer

from genzoo.core import checkpoint_manifest
from genzoo.core.checkpoint import checkpoint_steps
from genzoo.core.errors import CheckpointError, UsageError
from genzoo.training.hook import Hook, StepRecord
from genzoo.training.trainer import Trainer


class Crash(Exception):
    pass


class CrashAfter(Hook):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if record.step == self.step:
            raise Crash


def crash_and_resume(output: Path, step: int, **config: Any) -> None:
    with pytest.raises(Crash):
        toy_trainer(output, hooks=(CrashAfter(step),), **config).fit()
    result = toy_trainer(output, **config).fit()
    assert result.resumed_from == step - step % config["checkpoint_every"] or result.resumed_from is None


@pytest.mark.parametrize("micro_batch_size", [6, 2])
def test_resuming_at_any_step_of_three_epochs_changes_nothing(tmp_path: Path, micro_batch_size: int) -> None:
    # 10 items, batches of 6: epochs end inside batches; 1 checkpoint a step, so every step is a resume point
    config = {"steps": 7, "checkpoint_every": 1, "micro_batch_size": micro_batch_size}
    toy_trainer(tmp_path / "whole", dataset=ToyDataset(10), **config).fit()
    for step in range(1, 7):
        crash_and_resume(tmp_path / str(step), step, dataset=ToyDataset(10), **config)
        assert fingerprint(tmp_path / str(step)) == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_workers_change_nothing_across_a_resume(tmp_path: Path, num_workers: int) -> None:
    config = {"steps": 6, "checkpoint_every": 2}
    toy_trainer(tmp_path / "whole", **config).fit()
    crash_and_resume(tmp_path / "cut", 3, num_workers=num_workers, **config)
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_steps_after_the_last_checkpoint_are_repeated_identically(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "whole").fit()
    crash_and_resume(tmp_path / "cut", 7, checkpoint_every=4)
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_metrics_hold_every_step_once_after_a_resume(tmp_path: Path) -> None:
    crash_and_resume(tmp_path, 7, checkpoint_every=4)
    assert [line["step"] for line in fingerprint(tmp_path)["metrics"]] == list(range(1, 13))


def test_more_steps_continue_a_finished_run(tmp_path: Path) -> None:
    optim = {"name": "adamw", "lr": 1e-2}
    toy_trainer(tmp_path / "whole", steps=9, optim=optim).fit()
    toy_trainer(tmp_path / "cut", steps=4, optim=optim).fit()
    assert toy_trainer(tmp_path / "cut", steps=9, optim=optim).fit().resumed_from == 4
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_a_finished_run_says_so_and_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    toy_trainer(tmp_path).fit()

    def written() -> dict[Path, int]:
        files = [path for path in tmp_path.rglob("*") if not path.name.startswith(".lock")]
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    with caplog.at_level("INFO"):
        assert toy_trainer(tmp_path).fit().step == 12
    assert "this run is finished" in caplog.text
    assert written() == before


def test_never_refuses_a_folder_with_a_run(tmp_path: Path) -> None:
    toy_trainer(tmp_path).fit("never")
    with pytest.raises(UsageError, match="earlier run"):
        toy_trainer(tmp_path).fit("never")


def test_a_missing_path_is_an_error_and_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume from"):
        toy_trainer(tmp_path / "run").fit(tmp_path / "nowhere")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_another_runs_checkpoint_starts_a_new_folder(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "whole").fit()
    toy_trainer(tmp_path / "first", steps=12, checkpoint_every=4, keep_last=9).fit()
    path = checkpoint_steps(tmp_path / "first" / "checkpoints")[8]
    assert toy_trainer(tmp_path / "second").fit(path).resumed_from == 8
    assert final(tmp_path / "second").step == 12
    whole, second = fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "second")
    assert (second["weights"], second["ema"]) == (whole["weights"], whole["ema"])


def test_an_older_own_checkpoint_sets_the_newer_ones_aside(tmp_path: Path) -> None:
    toy_trainer(tmp_path).fit()
    whole = fingerprint(tmp_path)
    path = checkpoint_steps(tmp_path / "checkpoints")[4]
    assert toy_trainer(tmp_path).fit(path).resumed_from == 4
    assert fingerprint(tmp_path) == whole
    aside = {path.name for path in (tmp_path / "checkpoints").glob("aside_*")}
    assert aside == {"aside_step_00000008", "aside_step_00000012"}


def test_a_run_folder_as_path_means_its_newest_checkpoint(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "first", steps=8).fit()
    assert toy_trainer(tmp_path / "second", steps=8).fit(tmp_path / "first").resumed_from == 8


def test_a_folder_with_its_own_checkpoints_refuses_those_of_another(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "first").fit()
    toy_trainer(tmp_path / "second").fit()
    with pytest.raises(UsageError, match="checkpoints of its own"):
        toy_trainer(tmp_path / "first").fit(tmp_path / "second")


@pytest.mark.parametrize(("key", "value"), [("seed", 5), ("batch_size", 4)])
def test_a_change_of_data_order_is_refused(tmp_path: Path, key: str, value: int) -> None:
    toy_trainer(tmp_path, steps=4).fit()
    with pytest.raises(UsageError, match=f"train.{key}"):
        toy_trainer(tmp_path, **{"steps": 8, key: value}).fit()


def test_other_data_are_refused(tmp_path: Path) -> None:
    toy_trainer(tmp_path, steps=4).fit()
    with pytest.raises(UsageError, match="20 items then, 21 now"):
        toy_trainer(tmp_path, steps=8, dataset=ToyDataset(21)).fit()


def test_classes_that_changed_are_refused_by_name(tmp_path: Path) -> None:
    class Named(ToyDataset):
        def __init__(self, *names: str) -> None:
            super().__init__()
            self.class_names = list(names)

    toy_trainer(tmp_path, steps=4, dataset=Named("a", "b", "c")).fit()
    assert final(tmp_path).state["classes"] == ["a", "b", "c"]
    for names, told in {
        ("b", "c", "z"): "gone: a; new: z; with another label: b, c",
        ("a", "b", "c", "d"): "new: d",
        ("a", "c", "b"): "with another label: b, c",
    }.items():
        with pytest.raises(UsageError, match=f"3 then, {len(names)} now") as caught:
            toy_trainer(tmp_path, steps=8, dataset=Named(*names)).fit()
        assert told in str(caught.value)
    assert toy_trainer(tmp_path, steps=8, dataset=Named("a", "b", "c")).fit().resumed_from == 4


def test_another_architecture_is_refused_by_name_and_shape(tmp_path: Path) -> None:
    toy_trainer(tmp_path, steps=4).fit()
    with pytest.raises(CheckpointError, match=r"first\.bias: shape \(9,\) instead of \(8,\)"):
        toy_trainer(tmp_path, task=toy_task(hidden=8), steps=8).fit()


def test_another_precision_is_refused(tmp_path: Path) -> None:
    toy_trainer(tmp_path, steps=4).fit()
    with pytest.raises(CheckpointError, match=r"torch\.float32 instead of torch\.float64"):
        toy_trainer(tmp_path, steps=8, precision="fp64").fit()


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    toy_trainer(tmp_path, steps=4).fit()
    with pytest.raises(CheckpointError, match="made by AdamW"):
        toy_trainer(tmp_path, steps=8, optim={"name": "sgd", "lr": 0.1}).fit()


def test_dropping_the_average_is_allowed_and_adding_one_is_refused(tmp_path: Path) -> None:
    toy_trainer(tmp_path, steps=4).fit()
    toy_trainer(tmp_path, steps=8, ema_decay=None).fit()
    assert final(tmp_path).ema == {}
    with pytest.raises(CheckpointError, match="moving average"):
        toy_trainer(tmp_path, steps=12).fit()


def test_frozen_weights_are_kept_as_a_hash_and_stay_as_they_were(tmp_path: Path) -> None:
    task = toy_task(frozen_base=True)
    base = task.model.base.weight.clone()
    toy_trainer(tmp_path, task=task, steps=8).fit()
    assert task.model.base.weight.equal(base)
    stored = final(tmp_path)
    assert not [name for name in (*stored.weights, *stored.ema, *stored.optimizer) if "base" in name]
    assert toy_trainer(tmp_path, task=toy_task(frozen_base=True), steps=12).fit().resumed_from == 8


def test_another_frozen_base_is_refused(tmp_path: Path) -> None:
    toy_trainer(tmp_path, task=toy_task(frozen_base=True), steps=4).fit()
    with pytest.raises(CheckpointError, match="frozen weights are not those"):
        toy_trainer(tmp_path, task=toy_task(frozen_base=True, seed=4), steps=8).fit()


def test_a_corrupt_newest_checkpoint_is_named_and_the_previous_one_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toy_trainer(tmp_path / "whole").fit()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    weights = tmp_path / "cut" / "checkpoints" / "step_00000012" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert toy_trainer(tmp_path / "cut").fit().resumed_from == 8
    assert "CORRUPT CHECKPOINT SKIPPED" in caplog.text
    assert "step_00000012" in caplog.text
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_when_all_checkpoints_are_corrupt_nothing_starts_over(tmp_path: Path) -> None:
    toy_trainer(tmp_path).fit()
    for state in tmp_path.rglob("state.json"):
        state.write_text("{}")
    with pytest.raises(CheckpointError, match="refusing to start over"):
        toy_trainer(tmp_path).fit()


def test_a_checkpoint_is_hashed_once_to_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_trainer(tmp_path, steps=4, checkpoint_every=4).fit()
    hashed: list[str] = []
    digest = checkpoint_manifest.file_digest

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return digest(path)

    monkeypatch.setattr(checkpoint_manifest, "file_digest", counted)
    assert toy_trainer(tmp_path, steps=4, checkpoint_every=4).fit().resumed_from == 4
    assert sorted(hashed) == ["ema.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]
