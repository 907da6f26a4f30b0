"""Places that have no name of their own, parts of a run, and files whose names do not say what they hold."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from users_cases import Gz, fill

from genzoo.core.errors import UsageError
from genzoo.core.paths import beside


def test_a_result_stands_beside_the_folder_that_a_dot_means(gz: Gz, tmp_path: Path) -> None:
    fill(tmp_path / "in/pictures", 6)
    fill(tmp_path / "reference", 6, seed=1)
    judging = ("--reference", tmp_path / "reference", "--protocol", "quick-pixels", "--num", 6)
    os.chdir(tmp_path / "in/pictures")
    assert gz("evaluate", ".", *judging).code == 0
    assert (tmp_path / "in/pictures.quick-pixels.json").is_file()
    os.chdir(tmp_path / "reference")
    assert gz("evaluate", "../in/pictures/..", *judging).code == 0
    assert (tmp_path / "in.quick-pixels.json").is_file()


def test_a_place_beside_the_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--output"):
        beside("/", ".json")
    assert beside(tmp_path / "a.b", ".json") == tmp_path / "a.b.json"


def test_a_result_of_others_is_in_the_way_before_anything_is_judged(gz: Gz, tmp_path: Path) -> None:
    fill(tmp_path / "pictures", 6)
    (tmp_path / "pictures.quick-pixels.json").write_text("mine")
    answer = gz("evaluate", "pictures", "--reference", "pictures", "--protocol", "quick-pixels", "--num", 6)
    assert answer.code == 2
    assert "exists already" in answer.text
    assert "generated" not in answer.text
    assert (tmp_path / "pictures.quick-pixels.json").read_text() == "mine"


def test_a_run_that_is_the_current_folder_is_repeated_beside_it(shared: Path, gz: Gz, tmp_path: Path) -> None:
    shutil.copytree(shared / "run", tmp_path / "run")
    os.chdir(tmp_path / "run")
    assert gz("rerun", ".", "--steps", "1").code == 0
    assert (tmp_path / "run-rerun/checkpoints").is_dir()


@pytest.mark.parametrize("part", ["recipe.yaml", "checkpoints", "checkpoints/step_00000004", "model"])
def test_a_part_of_a_run_names_the_run(shared: Path, gz: Gz, part: str) -> None:
    part = "checkpoints/step_00000004/model.safetensors" if part == "model" else part
    os.chdir(shared)
    answer = gz("sample", f"run/{part}", "--num", "1")
    assert answer.code == 2
    assert "is a part of the run run" in answer.text


@pytest.mark.parametrize("name", ["m.txt", "m", "m.pt"])
def test_weights_are_exported_under_a_name_that_is_read_again(shared: Path, gz: Gz, name: str) -> None:
    answer = gz("export", shared / "run", name)
    assert answer.code == 2
    assert "name it m.safetensors" in answer.text
    assert not Path(name).exists()
