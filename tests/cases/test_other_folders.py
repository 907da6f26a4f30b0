"""A run is judged, trained again and sampled from another folder, and with data that lie elsewhere now."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from users_cases import Gz, fill_classes, spoil

from genzoo.api.run import load_run
from genzoo.core.errors import UsageError
from genzoo.core.recipe import load_recipe

JUDGE = ("--protocol", "quick-pixels", "--num", 6)


@pytest.fixture
def run(shared: Path, gz: Gz, tmp_path: Path) -> Path:
    """A run trained from tmp_path/home on the relative folder `pictures`; called from tmp_path/away."""
    home, away = tmp_path / "home", tmp_path / "away"
    fill_classes(home / "pictures")
    away.mkdir()
    os.chdir(home)
    assert gz("train", shared / "tiny.yaml", "data.root=pictures", "--output", "run").code == 0
    os.chdir(away)
    return home / "run"


def test_relative_data_are_found_from_where_the_run_was_started(run: Path, gz: Gz) -> None:
    assert gz("evaluate", run, *JUDGE).code == 0
    answer = gz("rerun", run, "--output", "again", "--compare")
    assert answer.code == 0, answer.text
    assert "losses are equal at all 4 steps" in answer.text
    assert load_recipe("again/recipe.yaml").data["data"]["root"] == str(run.parent / "pictures")
    assert load_recipe(str(run / "recipe.yaml")).data["data"]["root"] == "pictures"


def test_what_lies_here_under_the_same_name_is_taken(run: Path, gz: Gz) -> None:
    fill_classes(Path("pictures"), "wxyz")
    assert load_run(run).dataset().class_names == ["w", "x", "y", "z"]


def test_data_that_lie_elsewhere_now_are_named(run: Path, gz: Gz) -> None:
    shutil.move(run.parent / "pictures", "moved")
    answer = gz("evaluate", run, *JUDGE)
    assert answer.code == 4
    assert "set data.root" in answer.text
    first = gz("evaluate", run, "data.root=moved", *JUDGE)
    assert first.code == 0, first.text
    assert gz("rerun", run, "data.root=moved", "--output", "again").code == 0
    spoil(Path("moved/a/1.png"))
    assert gz("evaluate", run, "data.root=moved", "train.max_bad=1", "steps=2", *JUDGE).code == 0


@pytest.mark.parametrize("wrong", ["model.depth=2", "train.steps=9", "data.rot=x", "stepz=3"])
def test_only_its_data_can_be_changed(run: Path, gz: Gz, wrong: str) -> None:
    answer = gz("evaluate", run, wrong, *JUDGE)
    assert answer.code == 2
    assert wrong.partition("=")[0].rpartition(".")[2] in answer.text


def test_a_file_has_no_data_to_change(run: Path, gz: Gz) -> None:
    assert gz("export", run, "m.safetensors").code == 0
    with pytest.raises(UsageError, match="without data"):
        load_run("m.safetensors", ["data.root=x"])
    assert (
        gz(
            "evaluate", run.parent / "pictures", "data.root=x", "--reference", run.parent / "pictures", *JUDGE
        ).code
        == 2
    )


def test_the_recipe_of_a_run_finds_its_data_from_within_the_run(run: Path, gz: Gz) -> None:
    os.chdir(run)
    answer = gz("train", "recipe.yaml", "train.steps=6", "--output", ".")
    assert answer.code == 0, answer.text
    assert (run / "checkpoints/step_00000006").is_dir()
