"""`genzoo train --dry-run`: classes, files, time, memory and disk, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from users_cases import Gz, fill_classes, spoil

from genzoo.training.config import TrainConfig
from genzoo.training.summary import checkpoints_kept


def test_it_says_what_a_run_is_made_of_and_needs(shared: Path, gz: Gz, tmp_path: Path) -> None:
    recipe = (
        shared / "tiny.yaml",
        f"data.root={shared / 'abc'}",
        "train.steps=40",
        "train.checkpoint_every=10",
    )
    answer = gz("train", *recipe, "--dry-run", "--output", "run")
    assert answer.code == 0, answer.text
    for text in ("12 items in 3 classes: 0 a (4), 1 b (4), 2 c (4)", "s a step", "checkpoints x"):
        assert text in answer.text
    assert "all looked at, 0 unreadable" in answer.text
    assert not (tmp_path / "run").exists()
    text = gz("train", *recipe, "--dry-run", "--json").text
    said = json.loads(text[text.index("{\n") : text.rindex("}") + 1])
    assert said["classes"] == {"a": 4, "b": 4, "c": 4}
    assert said["run_seconds"] == pytest.approx(40 * said["step_seconds"])
    assert said["disk_bytes"] == said["kept"] * said["checkpoint_bytes"]
    assert said["free_memory_bytes"] > said["memory_bytes"] > 0


def test_files_that_training_would_meet_later_are_named_now(shared: Path, gz: Gz, tmp_path: Path) -> None:
    folder = fill_classes(tmp_path / "many", num=12)
    spoil(folder / "b" / "3.png")
    spoil(folder / "c" / "7.png")
    recipe = (shared / "tiny.yaml", f"data.root={folder}", "train.batch_size=1")
    answer = gz("train", *recipe, "--dry-run")
    assert answer.code == 4
    assert "all looked at, 2 unreadable; max_bad is 0" in answer.text
    assert "b/3.png" in answer.text
    assert "c/7.png" in answer.text
    assert gz("train", *recipe, "train.max_bad=2", "--dry-run").code == 0


def test_the_checkpoints_that_lie_there_at_once_are_counted() -> None:
    def kept(**options: int) -> int:
        return checkpoints_kept(TrainConfig(batch_size=1, **options))

    assert kept(steps=100, checkpoint_every=10, keep_last=3) == 4
    assert kept(steps=25, checkpoint_every=10, keep_last=3) == 3
    assert kept(steps=100, checkpoint_every=10, keep_last=2, keep_every=50) == 5


def test_a_training_that_is_no_dry_run_says_its_run_as_json(shared: Path, gz: Gz) -> None:
    answer = gz("train", shared / "tiny.yaml", f"data.root={shared / 'abc'}", "--output", "run", "--json")
    assert answer.code == 0, answer.text
    assert '"run": "run"' in answer.text


def test_a_concept_whose_batch_has_more_rows_than_samples_is_counted(gz: Gz) -> None:
    answer = gz("train", "quickstart/custom_diffusion_emoji", "--dry-run", "--output", "concept")
    assert answer.code == 0, answer.text
    assert "s a step" in answer.text
    assert "GPUs        12 GB: 1 (DDP)" in answer.text
