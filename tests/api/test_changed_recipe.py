"""A recipe that differs from the run in its folder: shown key by key, applied and recorded, or refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import TINY

from genzoo.api.rerun import compare_losses, rerun_recipe
from genzoo.api.run import load_run, train
from genzoo.core.checkpoint import load_checkpoint
from genzoo.core.errors import UsageError
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.core.recipe_history import phases_of
from genzoo.core.run_folder import read_metrics
from genzoo.training.hook import Hook
from genzoo.training.recipe_changes import changes


def tiny(**settings: Any) -> Recipe:
    """The tiny recipe without previews and report, with dotted keys (a__b) set."""
    data = copy.deepcopy(TINY)
    data["train"] |= {"steps": 4, "checkpoint_every": 2, "keep_last": 9, "log_every": 1}
    data |= {"report": [], "preview": None}
    plain = recipe_from(data)
    return plain.replaced({key.replace("__", "."): value for key, value in settings.items()}, "test")


def rates(folder: Path) -> list[float]:
    return [row["learning_rate"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]


def texts(folder: Path) -> dict[str, bytes]:
    files = [folder / "recipe.yaml", *folder.glob("recipes/*")]
    return {path.name: path.read_bytes() for path in files}


def test_another_rate_holds_from_the_next_step_on_and_is_shown_and_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    train(tiny(optim__lr=1e-3), output=folder)
    assert not (folder / "recipes").exists()
    train(tiny(optim__lr=5e-4, train__steps=6, train__keep_last=8), output=folder)
    assert rates(folder) == [1e-3] * 4 + [5e-4] * 2
    assert "changed from step 5 on" in caplog.text
    for line in ("optim.lr: 0.001 -> 0.0005", "train.steps: 4 -> 6", "train.keep_last: 9 -> 8"):
        assert line in caplog.text
    assert sorted(path.name for path in (folder / "recipes").iterdir()) == [
        "step_00000000.yaml",
        "step_00000004.yaml",
    ]
    assert [phase.recipe.data["optim"]["lr"] for phase in phases_of(folder, 6)] == [1e-3, 5e-4]
    assert load_run(folder).recipe.data["optim"]["lr"] == 5e-4
    assert "from step 5 on with optim.lr: 0.001 -> 0.0005" in (folder / "README.md").read_text()


def test_rerun_repeats_the_history_bit_for_bit(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    schedule = {"schedule": "cosine", "warmup_steps": 1}
    first = {f"optim__{key}": value for key, value in schedule.items()}
    train(tiny(optim__lr=1e-3, **first), output=folder)
    train(tiny(optim__lr=5e-4, train__steps=6, train__clip_grad_norm=0.1, **first), output=folder)
    train(tiny(optim__lr=5e-4, train__steps=8, train__ema_decay=0.5, **first), output=folder)
    run = load_run(folder)
    again = rerun_recipe(run, output=tmp_path / "again")
    assert rates(tmp_path / "again") == rates(folder)
    comparison = compare_losses(run, again)
    assert (comparison.steps, comparison.largest) == (8, 0.0)
    ours, theirs = (load_checkpoint(one.checkpoint(8)) for one in (run, again))
    assert all(ours.ema[name].equal(theirs.ema[name]) for name in ours.ema)
    part = rerun_recipe(run, output=tmp_path / "part", steps=5)
    assert part.step == 5
    assert rates(tmp_path / "part") == rates(folder)[:5]


def test_stopping_early_follows_the_whole_schedule(tmp_path: Path) -> None:
    settings = {"optim__schedule": "cosine", "train__steps": 6}
    train(tiny(**settings), output=tmp_path / "whole")
    assert train(tiny(**settings), output=tmp_path / "cut", until=3).step == 3
    assert train(tiny(**settings), output=tmp_path / "cut").step == 6
    assert rates(tmp_path / "cut") == rates(tmp_path / "whole")
    assert not (tmp_path / "cut" / "recipes").exists()


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"task__prediction": "x_0"}, "task.prediction: noise -> x_0"),
        ({"task__loss": {"name": "kl"}}, "task.loss.name: noise_mse -> kl"),
        ({"codec": {"name": "identity", "scale": 0.5}}, "codec.scale"),
        ({"model__depth": 1}, "model.depth"),
        ({"train__seed": 5}, "train.seed: 0 -> 5"),
        ({"train__batch_size": 6}, "train.batch_size: 12 -> 6"),
        ({"data__split": "test"}, "data.split"),
        ({"optim": {"name": "sgd", "lr": 0.1}}, "optim.name"),
        ({"held_out": {"share": 0.2}}, "held_out.share: (not set) -> 0.2"),
    ],
)
def test_what_makes_it_another_run_is_refused_by_key_and_leaves_the_folder(
    tmp_path: Path, setting: dict[str, Any], line: str
) -> None:
    folder = tmp_path / "run"
    train(tiny(), output=folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}
    with pytest.raises(UsageError, match="may not change after step 4") as caught:
        train(tiny(train__steps=6, **setting), output=folder)
    assert line in str(caught.value)
    for choice in ("set them back", "--output NEW", "--resume never"):
        assert choice in str(caught.value)
    assert {path: path.read_bytes() for path in before} == before


def test_a_finished_run_does_not_come_back_untrained_for_another_recipe(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    train(tiny(), output=folder)
    with pytest.raises(UsageError, match="this run is finished, 4 steps are done") as caught:
        train(tiny(optim__lr=1.0), output=folder)
    assert "optim.lr" in str(caught.value)
    with pytest.raises(UsageError, match=r"train.steps: 4 -> 2"):
        train(tiny(train__steps=2), output=folder)
    assert train(tiny(train__keep_last=2), output=folder).step == 4
    assert "these settings have no effect" in caplog.text
    assert "train.keep_last: 9 -> 2" in caplog.text
    caplog.clear()
    assert train(tiny(), output=folder).step == 4
    assert "no effect" not in caplog.text


class Fail(Hook):
    def on_start(self, trainer: Any) -> None:
        raise RuntimeError("before the first step")


class FailAt(Hook):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Any, record: Any) -> None:
        if record.step == self.step:
            raise RuntimeError("killed")


@pytest.mark.parametrize("hook", [Fail(), FailAt(5)], ids=["at start", "before the first save"])
def test_a_resume_that_fails_leaves_the_recipe_as_it_was(tmp_path: Path, hook: Hook) -> None:
    folder = tmp_path / "run"
    train(tiny(), output=folder)
    before = texts(folder)
    with pytest.raises(RuntimeError):
        train(tiny(optim__lr=5e-4, train__steps=8), output=folder, hooks=[hook])
    assert texts(folder) == before
    train(tiny(optim__lr=2e-4, train__steps=6), output=folder)
    assert [phase.recipe.data["optim"]["lr"] for phase in phases_of(folder, 6)] == [1e-3, 2e-4]


def test_going_back_to_an_older_checkpoint_forgets_the_recipes_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(tiny(), output=folder)
    train(tiny(optim__lr=5e-4, train__steps=6), output=folder)
    train(tiny(train__steps=6), output=folder, resume=folder / "checkpoints" / "step_00000002")
    assert [phase.recipe.data["train"]["steps"] for phase in phases_of(folder, 6)] == [4, 6]
    assert [phase.after for phase in phases_of(folder, 6)] == [0, 2]
    assert rates(folder) == [1e-3] * 6


def test_a_default_that_is_spelt_out_is_no_change() -> None:
    plain, spelt = tiny(), tiny(optim__eps=1e-8, train__max_bad=0, optim__betas=[0.9, 0.999], report=[])
    assert changes(plain, spelt) == changes(spelt, plain) == []
    assert [str(one) for one in changes(plain, tiny(optim__betas=[0.9, 0.95]))] == [
        "optim.betas.1: 0.999 -> 0.95"
    ]


def test_a_rerun_takes_settings_of_its_own(tmp_path: Path) -> None:
    run = train(tiny(), output=tmp_path / "run")
    again = rerun_recipe(run, output=tmp_path / "again", changes=["optim.lr=0.002"])
    assert rates(tmp_path / "again") == [2e-3] * 4
    assert again.recipe.data["optim"]["lr"] == 2e-3
