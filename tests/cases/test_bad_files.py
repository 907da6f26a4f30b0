"""What training tolerates ends neither evaluation nor report: bad files, and fewer than a protocol asks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from users_cases import Gz, fill_classes, spoil

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import KnowsPath, labels_of
from genzoo.core.errors import DataError
from genzoo.data.image_folder import ImageFolder
from genzoo.data.readable import readable

EVALUATION = "evaluation={every: 2, protocol: quick-pixels, num: 6}"
REPORT = "report=[{name: memorisation, num: 3}, {name: sample_grid, rows: 1, columns: 3}]"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    folder = fill_classes(tmp_path / "bad")
    spoil(folder / "a" / "1.png")
    return folder


def test_a_bad_file_within_max_bad_is_left_out_everywhere(
    shared: Path, bad: Path, gz: Gz, tmp_path: Path
) -> None:
    recipe = (shared / "tiny.yaml", f"data.root={bad}", "train.max_bad=2")
    assert gz("train", *recipe, EVALUATION, REPORT, "--output", "run").code == 0
    made = json.loads((tmp_path / "run/evaluation/step_00000004.json").read_text())
    assert made["reference"]["num"] == 11
    assert any("1 of 12 items cannot be read" in line and "1.png" in line for line in made["warnings"])
    assert (tmp_path / "run/samples/grid.png").is_file()
    answer = gz("evaluate", "run", "--protocol", "quick-pixels", "--num", "6", "--json")
    assert answer.code == 0, answer.text
    assert "1.png" in answer.text


def test_without_max_bad_the_file_and_the_way_on_are_named(shared: Path, bad: Path, gz: Gz) -> None:
    shutil.copytree(shared / "run", "run")
    text = Path("run/recipe.yaml").read_text().replace(str(shared / "abc"), str(bad))
    Path("run/recipe.yaml").write_text(text)
    answer = gz("evaluate", "run", "--protocol", "quick-pixels", "--num", "6")
    assert answer.code == 4
    assert "1.png" in answer.text
    assert "train.max_bad=1" in answer.text


def test_more_than_may_be_are_told_before_the_first_step(
    shared: Path, bad: Path, gz: Gz, tmp_path: Path
) -> None:
    for name in ("b/0.png", "c/3.png"):
        spoil(bad / name)
    answer = gz(
        "train", shared / "tiny.yaml", f"data.root={bad}", "train.max_bad=2", EVALUATION, "--output", "run"
    )
    assert answer.code == 4
    assert "3 unreadable item(s)" in answer.text
    assert not (tmp_path / "run/checkpoints").exists()


def test_fewer_references_than_a_subset_are_told_before_the_first_step(
    shared: Path, gz: Gz, tmp_path: Path
) -> None:
    recipe = (shared / "tiny.yaml", f"data.root={shared / 'flat'}")
    answer = gz("train", *recipe, EVALUATION.replace("6}", "8}"), "--output", "run")
    assert answer.code == 4
    assert "the reference has 5" in answer.text
    assert "evaluation.num=5" in answer.text
    assert not (tmp_path / "run/checkpoints").exists()
    assert gz("train", *recipe, EVALUATION.replace("6}", "5}"), "--output", "run").code == 0
    made = json.loads((tmp_path / "run/evaluation/step_00000004.json").read_text())
    assert any("KID subsets of 5" in line for line in made["differences"])


def test_the_items_that_are_left_keep_labels_and_paths(bad: Path) -> None:
    dataset = ImageFolder(bad, image_size=8, horizontal_flip=False)
    left = readable(dataset, 1)
    assert (len(dataset), len(left), left.num_classes, left.class_names) == (12, 11, 3, ["a", "b", "c"])
    labels, paths = labels_of(left), able(left, KnowsPath)
    assert labels is not None
    assert paths is not None
    assert labels.tolist() == [0] * 3 + [1] * 4 + [2] * 4
    assert [paths.path(index).name for index in range(4)] == ["0.png", "2.png", "3.png", "0.png"]
    for index in range(len(left)):
        assert torch.equal(left.fetch(index)["class_labels"], labels[index])
    assert left.fingerprint != dataset.fingerprint
    assert readable(dataset, 0) is dataset
    spoil(bad / "b" / "0.png")
    with pytest.raises(DataError, match="2 unreadable"):
        readable(dataset, 1)
